"""Telling when an ``async def`` function waits for nothing but suspended steps.

A suspended step is one that is awaited and does not end: whatever the function awaits
it with (``gather``, a ``TaskGroup``, ``wait_for``) sees no result and no error of it.
Once no step is at work and no task can go on, the attempt is over, and all that it left
waiting is cancelled. The loop itself tells when that is: it belongs to the attempt.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from durable_jobs.engine.event_loops import WorkerLoop
from durable_jobs.engine.suspend import Suspend, is_over

Task = asyncio.Task[Any]

#: Turns of the event loop in which what a result has set going comes to rest.
TURNS = 20
#: Seconds for which tasks that await something outside of the loop are waited for.
PATIENCE = 1.0

#: Where code of the standard library waits for other tasks: its module, and what there
#: is not meant.
COMBINING = {
    "asyncio.tasks": {"sleep"},
    "asyncio.taskgroups": set(),
    "asyncio.queues": set(),
    "asyncio.locks": {"wait"},
    "anyio._backends._asyncio": {"sleep", "receive", "wait"},
}


class IdleDetector:
    """What the steps of one attempt do: which work, and which tasks they suspend."""

    def __init__(self, loop: WorkerLoop) -> None:
        self.left = False
        self._loop = loop
        self._rests: asyncio.Future[bool] = loop.create_future()
        self._changes = 0
        #: The task that looks after the attempt, and awaits its end.
        self._engines = {asyncio.current_task(loop)}
        self._patience: asyncio.TimerHandle | None = None
        self._working = 0
        self._steps: set[Task] = set()
        self._suspended: set[Task] = set()
        self._trouble: BaseException | None = None
        self._changed = asyncio.Event()

    def watch(self, step: Task) -> None:
        """Hold on to a step's task, and end the attempt if the engine fails in it."""
        self._steps.add(step)
        step.add_done_callback(self._ended)

    def _ended(self, step: Task) -> None:
        self._steps.discard(step)
        error = None if step.cancelled() else step.exception()
        if not is_over(error):
            return
        if self._trouble is None:
            self._trouble = error
        self._decide(ended=False)

    @contextmanager
    def work(self) -> Iterator[None]:
        """Note that a step is at work inside the block."""
        self._working += 1
        self._changes += 1
        try:
            yield
        finally:
            self._working -= 1
            self._changes += 1
            self._changed.set()

    async def idle(self) -> None:
        """Wait until no step is at work."""
        while self._working:
            self._changed.clear()
            await self._changed.wait()

    async def suspend(self) -> NoReturn:
        """Let the task that awaits a suspended step wait as long as the attempt."""
        if self.left:
            raise Suspend
        task = asyncio.current_task()
        assert task is not None, "steps are awaited in tasks"
        self._suspended.add(task)
        self._changes += 1
        self._be_patient()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._suspended.discard(task)
        raise AssertionError("nothing ends this future")

    async def rest(self, function: Task) -> bool:
        """Wait for the function; tell whether it has ended, or is only suspended."""
        function.add_done_callback(lambda _: self._decide(ended=True))
        try:
            with self._loop.watched(self._is_at_rest):
                ended = await self._rests
        finally:
            if self._patience is not None:
                self._patience.cancel()
        if self._trouble is not None:
            raise self._trouble
        return ended

    def _decide(self, *, ended: bool) -> None:
        if not self._rests.done():
            self._rests.set_result(ended)

    def _is_at_rest(self) -> bool:
        """Return whether the attempt is over, now that nothing in its loop can go on.

        It is, where each task awaits a suspended step or other tasks, or where nothing
        outside of the loop is expected.
        """
        if self._working or not self._suspended or self._rests.done():
            return False
        if self._others() and self._loop.expects():
            self._be_patient()
            return False
        self._decide(ended=False)
        return True

    def _be_patient(self) -> None:
        """Wait a while for what comes from outside, then no longer."""
        if self._patience is None:
            changes, others = self._changes, self._others()
            self._patience = self._loop.own_timer(
                PATIENCE, lambda: self._lose_patience(changes, others)
            )

    def _lose_patience(self, changes: int, others: set[Task]) -> None:
        self._patience = None
        if self._working or not self._suspended:
            return
        if changes == self._changes and not any(task.done() for task in others):
            self._decide(ended=False)
        else:
            self._be_patient()

    def _others(self) -> set[Task]:
        """Return the tasks that may await something else than steps."""
        known = {*self._engines, *self._steps, *self._suspended}
        return {task for task in self._loop.tasks - known if not _combines(task)}

    async def leave(self) -> None:
        """Cancel all that is still waiting, and whatever else has been begun."""
        self.left = True
        await self._loop.tidy()


def _combines(task: Task) -> bool:
    """Tell whether a task waits for other tasks, which then are what counts."""
    # There is no public way to ask; without an answer, the task is waited for a while.
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
