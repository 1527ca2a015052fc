"""Event loops that live as long as the worker thread that they belong to.

A host's pooled HTTP client, made once in a module, keeps connections of the loop that
it was first used in. So each thread that executes runs keeps one loop, in a thread
beside it: what needs the database goes back to the thread of the run. At the end of an
attempt all tasks and asynchronous generators that it left in the loop are ended.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import selectors
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import SyncToAsync, async_to_sync

from durable_jobs.control_flow import EngineControl, is_failure

T = TypeVar("T")
Task = asyncio.Task[Any]

#: Seconds that tasks are given to end after they were cancelled.
PATIENCE = 1.0
#: Seconds after which a loop that does not answer is given up.
BLOCKED = 2 * PATIENCE + 1.0

#: Timers that end a wait by an error. A suspended step takes none of their time.
_DEADLINES = frozenset({"Timeout._on_timeout", "CancelScope._timeout"})
_DEADLINE = "_release_waiter"


class _Selector(selectors.DefaultSelector):
    """Tells when nothing in the loop can go on but by what comes from outside."""

    on_quiet: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> Any:
        """Wait as the loop asks; the loop asks for no time while it has work."""
        if self.on_quiet is not None and (timeout is None or timeout > 0):
            ready = super().select(0)
            if ready or self.on_quiet():
                return ready
        return super().select(timeout)


class WorkerLoop(asyncio.SelectorEventLoop):
    """A loop that knows the tasks in it, and what they may wait for outside of it."""

    def __init__(self) -> None:
        self._quiet = _Selector()
        super().__init__(self._quiet)
        self.tasks: set[Task] = set()
        self._tidying: set[Task] = set()
        self._calls = 0
        self._timers: weakref.WeakSet[asyncio.TimerHandle] = weakref.WeakSet()

    def create_task(self, coro: Any, **options: Any) -> Task:
        """Make a task, and hold on to it until it ends."""
        task: Task = super().create_task(coro, **options)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def run_in_executor(  # type: ignore[override]  # it passes on what it is given
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """Call something in another thread."""
        future = super().run_in_executor(executor, func, *args)
        self._calls += 1
        future.add_done_callback(self._called)
        return future

    def _called(self, future: Any) -> None:
        self._calls -= 1

    def call_at(  # type: ignore[override]  # more than the versions of Python agree on
        self, when: float, callback: Any, *args: Any, **options: Any
    ) -> Any:
        """Set a timer."""
        timer = super().call_at(when, callback, *args, **options)
        name = getattr(callback, "__qualname__", "")
        if name not in _DEADLINES and name != _DEADLINE:
            self._timers.add(timer)
        return timer

    def own_timer(self, seconds: float, callback: Any) -> asyncio.TimerHandle:
        """Set a timer that is the engine's own: no task waits for it."""
        return super().call_at(self.time() + seconds, callback)

    def expects(self) -> bool:
        """Return whether something outside may let a task go on.

        Connections and files that are watched, calls in threads, and timers.
        """
        watched = len(self._quiet.get_map() or ()) > 1  # one is the loop's own
        return watched or self._calls > 0 or any(map(self._is_due, self._timers))

    def _is_due(self, timer: asyncio.TimerHandle) -> bool:
        return not timer.cancelled() and timer.when() > self.time()

    @contextmanager
    def watched(self, on_quiet: Callable[[], bool]) -> Iterator[None]:
        """Call ``on_quiet`` whenever nothing in the loop can go on.

        It returns whether it has changed that.
        """
        before, self._quiet.on_quiet = self._quiet.on_quiet, on_quiet
        try:
            yield
        finally:
            self._quiet.on_quiet = before

    def tidying(self) -> Task:
        """Make a task that tidies, and that no other one ends."""
        task: Task = super().create_task(self.tidy())
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        return task

    def tidy_from_outside(self) -> Future[None]:
        """Let another thread wait until the loop is tidy."""
        future: Future[None] = Future()

        def begin() -> None:
            self.tidying().add_done_callback(lambda _: future.set_result(None))

        self.call_soon_threadsafe(begin)
        return future

    async def tidy(self) -> None:
        """End all other tasks, and close what asynchronous generators are open."""
        own = asyncio.current_task()
        if own is not None:
            self.tasks.discard(own)  # nor is it ended by another one that tidies
        tasks = set(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in done:
                # Retrieved, for nothing else is there to hear of it.
                _ = task.cancelled() or task.exception()
        if getattr(self, "_asyncgens", None):
            await self.shutdown_asyncgens()
            self._asyncgens_shutdown_called = False  # the loop goes on


class _Runner:
    """A loop and the thread in which it runs."""

    def __init__(self) -> None:
        self.loop = WorkerLoop()
        self.pid = os.getpid()
        self.busy = False
        self._ends = threading.Event()
        self._thread = threading.Thread(
            target=_serve,
            args=(self.loop, self._ends),
            name="durable-loop",
            daemon=True,
        )
        self._thread.start()
        _runners.add(self)

    def tidy(self) -> bool:
        """End what is left in the loop; return whether the loop still answers."""
        try:
            self.loop.tidy_from_outside().result(BLOCKED)
        except Late:
            return False
        return True

    def stop(self) -> None:
        """Let the loop end and be closed."""
        self._ends.set()
        if not self.loop.is_closed():
            try:
                self.loop.call_soon_threadsafe(self.loop.stop)
            except RuntimeError:
                return  # it has just been closed

    def join(self) -> None:
        """Wait until the loop is closed."""
        self._thread.join(BLOCKED)


def _serve(loop: WorkerLoop, ends: threading.Event) -> None:
    try:
        while not ends.is_set():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue  # of a task, and whatever awaits the task sees it
        loop.run_until_complete(loop.tidying())
    finally:
        if not loop.is_running():
            loop.close()


class _Pool:
    """The loops of one thread: one, and one more for each run inside another."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.runners: list[_Runner] = []

    def take(self) -> _Runner:
        """Return a loop that no attempt uses."""
        for runner in self.runners:
            if not runner.busy:
                break
        else:
            runner = _Runner()
            self.runners.append(runner)
        runner.busy = True
        return runner

    def give_back(self, runner: _Runner) -> None:
        """Keep a loop for the next attempt, if it still works."""
        if runner.tidy():
            runner.busy = False
        else:
            # Stuck in code that does not await: it ends when that does.
            runner.stop()
            self.runners.remove(runner)

    def close(self) -> None:
        """End all of them."""
        runners, self.runners = self.runners, []
        for runner in runners:
            runner.stop()
        for runner in runners:
            runner.join()

    def __del__(self) -> None:
        if self.pid == os.getpid():
            for runner in self.runners:
                runner.stop()


class _Home:
    """The loop of one attempt, taken when it is first needed."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._runner: _Runner | None = None

    def loop(self) -> WorkerLoop:
        """Return the loop, in whichever thread of the attempt this is called."""
        with self._lock:
            if self._runner is None:
                self._runner = self._pool.take()
            return self._runner.loop

    def end(self) -> None:
        """End what the attempt left in its loop."""
        with self._lock:
            runner, self._runner = self._runner, None
        if runner is not None:
            self._pool.give_back(runner)


_local = threading.local()
_runners: weakref.WeakSet[_Runner] = weakref.WeakSet()
_home: ContextVar[_Home | None] = ContextVar("durable_event_loop", default=None)
#: What a forked process has of its parent's loops: their threads are not here.
_inherited: list[_Pool] = []


def _own_pool() -> _Pool:
    pool: _Pool | None = getattr(_local, "pool", None)
    if pool is not None and pool.pid != os.getpid():
        _inherited.append(pool)
        pool = None
    if pool is None:
        pool = _local.pool = _Pool()
    return pool


@contextmanager
def attempt() -> Iterator[None]:
    """Let what is awaited in the block share one loop of this thread."""
    home = _Home(_own_pool())
    token = _home.set(home)
    try:
        yield
    finally:
        _home.reset(token)
        home.end()


def run(fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Await ``fn(*args)`` in the loop of the attempt, from a thread without a loop.

    What the code in there calls by ``sync_to_async`` is called in this thread.
    """
    home = _home.get()
    if home is None:
        with attempt():
            return run(fn, *args)
    loop = home.loop()
    # As asgiref finds a loop from within ``sync_to_async``.
    local: Any = SyncToAsync.threadlocal
    before = {name: getattr(local, name, None) for name in _FOUND_BY}
    local.main_event_loop, local.main_event_loop_pid = loop, os.getpid()
    local.task_context = None
    try:
        result: T = async_to_sync(fn)(*args)
    except BaseException as error:
        if not is_failure(error) and not isinstance(error, EngineControl):
            loop.tidy_from_outside()  # nothing waits for it any more
        raise
    finally:
        for name, value in before.items():
            setattr(local, name, value)
    return result


_FOUND_BY = ("main_event_loop", "main_event_loop_pid", "task_context")


def current() -> WorkerLoop:
    """Return the loop that is running."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WorkerLoop), "functions are awaited by run() alone"
    return loop


def close() -> None:
    """End the loops of this thread."""
    pool: _Pool | None = getattr(_local, "pool", None)
    if pool is not None and pool.pid == os.getpid():
        pool.close()


@atexit.register
def _close_all() -> None:
    runners = [runner for runner in _runners if runner.pid == os.getpid()]
    for runner in runners:
        runner.stop()
    for runner in runners:
        runner.join()
