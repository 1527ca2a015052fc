"""Event loops that live as long as their worker thread.

A pooled HTTP client in your project, created once per module, keeps connections of the
loop that first used it. So each thread that executes runs keeps one loop, in a second
thread. Database calls go back to the thread of the run. At the end of an attempt, its
remaining tasks and asynchronous generators in the loop are ended.
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
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import SyncToAsync, async_to_sync

from durable_jobs.control_flow import EngineControl, is_failure

T = TypeVar("T")
Task = asyncio.Task[Any]

#: Seconds that tasks have to end after they were cancelled.
PATIENCE = 1.0
#: Seconds after which a loop that does not respond is abandoned.
BLOCKED = 2 * PATIENCE + 1.0

#: Timers that end a wait by an error. They do not count as pending work.
_DEADLINES = frozenset({"Timeout._on_timeout", "CancelScope._timeout"})
_DEADLINE = "_release_waiter"


class _Selector(selectors.DefaultSelector):
    """Calls ``on_idle`` when only I/O, threads or timers can resume the loop."""

    on_idle: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> Any:
        """Wait for I/O; the loop passes a timeout of 0 while it has work."""
        if self.on_idle is not None and (timeout is None or timeout > 0):
            ready = super().select(0)
            if ready or self.on_idle():
                return ready
        return super().select(timeout)


class WorkerLoop(asyncio.SelectorEventLoop):
    """A loop that knows its tasks, and what they wait for outside of the loop."""

    def __init__(self) -> None:
        self._selector = _Selector()
        super().__init__(self._selector)
        self.tasks: set[Task] = set()
        self._tidy_tasks: set[Task] = set()
        self._calls = 0
        self._timers: weakref.WeakSet[asyncio.TimerHandle] = weakref.WeakSet()

    def create_task(self, coro: Any, **options: Any) -> Task:
        """Create a task, and keep it until it ends."""
        task: Task = super().create_task(coro, **options)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def run_in_executor(  # type: ignore[override]  # passes on its arguments
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """Call ``func`` in another thread, and count the call."""
        future = super().run_in_executor(executor, func, *args)
        self._calls += 1
        future.add_done_callback(self._called)
        return future

    def _called(self, future: Any) -> None:
        self._calls -= 1

    def call_at(  # type: ignore[override]  # signatures differ between Python versions
        self, when: float, callback: Any, *args: Any, **options: Any
    ) -> Any:
        """Set a timer, and keep those that resume a task."""
        timer = super().call_at(when, callback, *args, **options)
        name = getattr(callback, "__qualname__", "")
        if name not in _DEADLINES and name != _DEADLINE:
            self._timers.add(timer)
        return timer

    def engine_timer(self, seconds: float, callback: Any) -> asyncio.TimerHandle:
        """Set a timer of the engine, for which no task waits."""
        return super().call_at(self.time() + seconds, callback)

    def has_pending_io(self) -> bool:
        """Return whether I/O, a thread or a timer may resume a task."""
        watching_idle = (
            len(self._selector.get_map() or ()) > 1
        )  # the loop itself has one
        return watching_idle or self._calls > 0 or any(map(self._is_due, self._timers))

    def _is_due(self, timer: asyncio.TimerHandle) -> bool:
        return not timer.cancelled() and timer.when() > self.time()

    @contextmanager
    def watching_idle(self, on_idle: Callable[[], bool]) -> Iterator[None]:
        """Call ``on_idle`` whenever no task in the loop can continue.

        ``on_idle`` returns whether it has made a task ready.
        """
        before, self._selector.on_idle = self._selector.on_idle, on_idle
        try:
            yield
        finally:
            self._selector.on_idle = before

    def tidy_task(self) -> Task:
        """Return a task that ends all others; no other such task ends it."""
        task: Task = super().create_task(self.tidy())
        self._tidy_tasks.add(task)
        task.add_done_callback(self._tidy_tasks.discard)
        return task

    def tidy_from_outside(self) -> Future[None]:
        """End all tasks of the loop, called from another thread; return a future."""
        future: Future[None] = Future()

        def begin() -> None:
            self.tidy_task().add_done_callback(lambda _: future.set_result(None))

        self.call_soon_threadsafe(begin)
        return future

    async def tidy(self) -> None:
        """Cancel all other tasks, and close open asynchronous generators."""
        this_task = asyncio.current_task()
        if this_task is not None:
            self.tasks.discard(this_task)  # else another tidy() would end this one
        tasks = set(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in done:
                # Retrieved, so that asyncio does not log it.
                _ = task.cancelled() or task.exception()
        if getattr(self, "_asyncgens", None):
            await self.shutdown_asyncgens()
            self._asyncgens_shutdown_called = False  # the loop is used again


class _Runner:
    """A loop and the thread that runs it."""

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
        """End what is left in the loop; return whether the loop responded."""
        try:
            self.loop.tidy_from_outside().result(BLOCKED)
        except FutureTimeout:
            return False
        return True

    def stop(self) -> None:
        """Stop and close the loop."""
        self._ends.set()
        if not self.loop.is_closed():
            try:
                self.loop.call_soon_threadsafe(self.loop.stop)
            except RuntimeError:
                return  # closed since the check

    def join(self) -> None:
        """Wait until the loop is closed."""
        self._thread.join(BLOCKED)


def _serve(loop: WorkerLoop, ends: threading.Event) -> None:
    try:
        while not ends.is_set():
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                continue  # raised in a task; the code that awaits the task gets it
        loop.run_until_complete(loop.tidy_task())
    finally:
        if not loop.is_running():
            loop.close()


class _Pool:
    """The loops of one thread: one, and one per run that executes inside another."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.runners: list[_Runner] = []

    def acquire(self) -> _Runner:
        """Return a loop that no attempt uses."""
        for runner in self.runners:
            if not runner.busy:
                break
        else:
            runner = _Runner()
            self.runners.append(runner)
        runner.busy = True
        return runner

    def release(self, runner: _Runner) -> None:
        """Keep a loop for the next attempt, if it still responds."""
        if runner.tidy():
            runner.busy = False
        else:
            # Blocked by code that does not await: the loop ends after that code.
            runner.stop()
            self.runners.remove(runner)

    def close(self) -> None:
        """Stop all loops."""
        runners, self.runners = self.runners, []
        for runner in runners:
            runner.stop()
        for runner in runners:
            runner.join()

    def __del__(self) -> None:
        if self.pid == os.getpid():
            for runner in self.runners:
                runner.stop()


class _AttemptLoop:
    """The loop of one attempt, acquired when it is first needed."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._runner: _Runner | None = None

    def loop(self) -> WorkerLoop:
        """Return the loop; any thread of the attempt may call this."""
        with self._lock:
            if self._runner is None:
                self._runner = self._pool.acquire()
            return self._runner.loop

    def end(self) -> None:
        """End what the attempt left in its loop."""
        with self._lock:
            runner, self._runner = self._runner, None
        if runner is not None:
            self._pool.release(runner)


_local = threading.local()
_runners: weakref.WeakSet[_Runner] = weakref.WeakSet()
_current_loop: ContextVar[_AttemptLoop | None] = ContextVar(
    "durable_event_loop", default=None
)
#: Pools of the parent process after a fork: their threads do not exist here.
_inherited: list[_Pool] = []


def _pool_of_thread() -> _Pool:
    pool: _Pool | None = getattr(_local, "pool", None)
    if pool is not None and pool.pid != os.getpid():
        _inherited.append(pool)
        pool = None
    if pool is None:
        pool = _local.pool = _Pool()
    return pool


@contextmanager
def attempt_loop() -> Iterator[None]:
    """Share one loop of this thread among all coroutines of the block."""
    shared_loop = _AttemptLoop(_pool_of_thread())
    token = _current_loop.set(shared_loop)
    try:
        yield
    finally:
        _current_loop.reset(token)
        shared_loop.end()


def run(fn: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Await ``fn(*args)`` in the loop of the attempt, from a thread without a loop.

    ``sync_to_async`` calls inside run in the calling thread.
    """
    shared_loop = _current_loop.get()
    if shared_loop is None:
        with attempt_loop():
            return run(fn, *args)
    loop = shared_loop.loop()
    # Where asgiref looks for the loop inside ``sync_to_async``.
    local: Any = SyncToAsync.threadlocal
    before = {name: getattr(local, name, None) for name in _FOUND_BY}
    local.main_event_loop, local.main_event_loop_pid = loop, os.getpid()
    local.task_context = None
    try:
        result: T = async_to_sync(fn)(*args)
    except BaseException as error:
        if not is_failure(error) and not isinstance(error, EngineControl):
            loop.tidy_from_outside()  # the coroutine is not awaited any more
        raise
    finally:
        for name, value in before.items():
            setattr(local, name, value)
    return result


_FOUND_BY = ("main_event_loop", "main_event_loop_pid", "task_context")


def running_loop() -> WorkerLoop:
    """Return the running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WorkerLoop), "only run() awaits functions"
    return loop


def close() -> None:
    """Stop the loops of this thread."""
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
