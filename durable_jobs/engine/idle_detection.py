"""Detect when an ``async def`` function waits for nothing but suspended steps.

Awaiting a suspended step never ends: ``gather``, a ``TaskGroup`` or ``wait_for`` gets
no result and no error. When no step executes and no task can continue, the attempt is
over, and its remaining tasks are cancelled. The event loop detects this: it belongs to
the attempt alone.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from durable_jobs.engine.event_loops import WorkerLoop
from durable_jobs.engine.suspend import Suspend, ends_attempt

Task = asyncio.Task[Any]

#: Iterations of the event loop in which tasks react to a result.
SETTLE_ITERATIONS = 20
#: Seconds that tasks get which wait for something outside the loop.
PATIENCE = 1.0

#: Modules whose coroutines wait for other tasks, with the functions that do not.
COMBINING = {
    "asyncio.tasks": {"sleep"},
    "asyncio.taskgroups": set(),
    "asyncio.queues": set(),
    "asyncio.locks": {"wait"},
    "anyio._backends._asyncio": {"sleep", "receive", "wait"},
}


class IdleDetector:
    """The steps of one attempt: which execute, and which tasks await suspended ones."""

    def __init__(self, loop: WorkerLoop) -> None:
        self.closed = False
        self._loop = loop
        self._has_ended: asyncio.Future[bool] = loop.create_future()
        self._changes = 0
        #: The task of the engine, which awaits the end of the attempt.
        self._engine_tasks = {asyncio.current_task(loop)}
        self._patience: asyncio.TimerHandle | None = None
        self._executing = 0
        self._steps: set[Task] = set()
        self._suspended: set[Task] = set()
        self._engine_error: BaseException | None = None
        self._changed = asyncio.Event()

    def watch(self, step: Task) -> None:
        """Keep a step's task, and end the attempt if the engine fails in it."""
        self._steps.add(step)
        step.add_done_callback(self._ended)

    def _ended(self, step: Task) -> None:
        self._steps.discard(step)
        error = None if step.cancelled() else step.exception()
        if not ends_attempt(error):
            return
        if self._engine_error is None:
            self._engine_error = error
        self._decide(ended=False)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a step as executing inside the block."""
        self._executing += 1
        self._changes += 1
        try:
            yield
        finally:
            self._executing -= 1
            self._changes += 1
            self._changed.set()

    async def wait_for_steps(self) -> None:
        """Wait until no step executes."""
        while self._executing:
            self._changed.clear()
            await self._changed.wait()

    async def suspend(self) -> NoReturn:
        """Block the current task, which awaits a suspended step.

        The task is cancelled when the attempt ends.
        """
        if self.closed:
            raise Suspend
        task = asyncio.current_task()
        assert task is not None, "steps are awaited in tasks"
        self._suspended.add(task)
        self._changes += 1
        self._start_patience()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._suspended.discard(task)
        raise AssertionError("nothing ends this future")

    async def wait(self, function: Task) -> bool:
        """Wait until the function ends or only suspended steps are left.

        Return whether the function has ended.
        """
        function.add_done_callback(lambda _: self._decide(ended=True))
        try:
            with self._loop.watching_idle(self._check_idle):
                ended = await self._has_ended
        finally:
            if self._patience is not None:
                self._patience.cancel()
        if self._engine_error is not None:
            raise self._engine_error
        return ended

    def _decide(self, *, ended: bool) -> None:
        if not self._has_ended.done():
            self._has_ended.set_result(ended)

    def _check_idle(self) -> bool:
        """Return whether the attempt is over; called when no task can continue.

        The attempt is over if each task awaits a suspended step or other tasks, or if
        no I/O, thread or timer is pending.
        """
        if self._executing or not self._suspended or self._has_ended.done():
            return False
        if self._other_tasks() and self._loop.has_pending_io():
            self._start_patience()
            return False
        self._decide(ended=False)
        return True

    def _start_patience(self) -> None:
        """Give tasks that wait for something outside the loop a limited time."""
        if self._patience is None:
            changes, other_tasks = self._changes, self._other_tasks()
            self._patience = self._loop.engine_timer(
                PATIENCE, lambda: self._end_patience(changes, other_tasks)
            )

    def _end_patience(self, changes: int, other_tasks: set[Task]) -> None:
        self._patience = None
        if self._executing or not self._suspended:
            return
        if changes == self._changes and not any(task.done() for task in other_tasks):
            self._decide(ended=False)
        else:
            self._start_patience()

    def _other_tasks(self) -> set[Task]:
        """Return the tasks that may await something other than steps."""
        known = {*self._engine_tasks, *self._steps, *self._suspended}
        return {task for task in self._loop.tasks - known if not _waits_for_tasks(task)}

    async def close(self) -> None:
        """Cancel all remaining tasks."""
        self.closed = True
        await self._loop.tidy()


def _waits_for_tasks(task: Task) -> bool:
    """Return whether a task only waits for other tasks of the loop."""
    # There is no public API for this. If it fails, the task gets PATIENCE seconds.
    future = getattr(task, "_fut_waiter", None)
    if isinstance(future, asyncio.Task) or hasattr(future, "_children"):
        return True
    coroutine: Any = task.get_coro()
    while inspect.iscoroutine(inner := getattr(coroutine, "cr_await", None)):
        coroutine = inner
    frame = getattr(coroutine, "cr_frame", None)
    if frame is None:
        return False
    excluded = COMBINING.get(frame.f_globals.get("__name__", ""))
    return excluded is not None and frame.f_code.co_name not in excluded
