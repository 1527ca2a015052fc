"""Telling when an ``async def`` function waits for nothing but suspended steps.

A suspended step is one that is awaited and does not end: whatever the function awaits
it with (``gather``, a ``TaskGroup``, ``wait_for``) sees no result and no error of it.
Once no step is at work and no task can go on, the attempt is over, and all that it left
waiting is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from durable_jobs.engine.suspend import Suspend, is_over

Task = asyncio.Task[Any]

#: Turns of the event loop in which nothing happens, until nothing will.
TURNS = 20
#: Seconds for which tasks that await anything else than steps are waited for.
PATIENCE = 1.0

#: Where code of the standard library waits for other tasks: its module, and what there
#: is not meant.
COMBINING = {
    "asyncio.tasks": {"sleep"},
    "asyncio.taskgroups": set(),
    "asyncio.queues": set(),
    "asyncio.locks": {"wait"},
}


class Activity:
    """What the steps of one attempt do: which work, and which tasks they suspend."""

    def __init__(self) -> None:
        self.left = False
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
        self._trouble = self._trouble or error
        self._changed.set()

    @contextmanager
    def work(self) -> Iterator[None]:
        """Note that a step is at work inside the block."""
        self._working += 1
        self._changed.set()
        try:
            yield
        finally:
            self._working -= 1
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
        self._changed.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self._suspended.discard(task)
        raise AssertionError("nothing ends this future")

    async def rest(self, function: Task) -> bool:
        """Wait for the function; tell whether it has ended, or is only suspended."""
        function.add_done_callback(lambda _: self._changed.set())
        while not function.done() and self._trouble is None:
            self._changed.clear()
            if self._working or not self._suspended:
                await self._changed.wait()
            elif await self._still():
                return False
        if self._trouble is not None:
            raise self._trouble
        return True

    async def _still(self) -> bool:
        """Tell whether nothing can go on in this attempt."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if self._changed.is_set():
                return False
        others = self._others()
        if others:
            changed = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait(
                {*others, changed},
                timeout=PATIENCE,
                return_when=asyncio.FIRST_COMPLETED,
            )
            changed.cancel()
        return not self._changed.is_set() and not any(task.done() for task in others)

    def _others(self) -> set[Task]:
        """Return the tasks that may await something else than steps."""
        known = {asyncio.current_task(), *self._steps, *self._suspended}
        return {task for task in asyncio.all_tasks() - known if not _combines(task)}

    async def leave(self) -> None:
        """Cancel all that is still waiting, and whatever else has been begun."""
        self.left = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            done, _ = await asyncio.wait(tasks, timeout=PATIENCE)
            for task in done:
                # Retrieved, for nobody else is there to hear of it.
                _ = task.cancelled() or task.exception()


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
