"""The order in which the steps of an ``async def`` function are seen to end.

What a function does after ``asyncio.wait`` or ``as_completed`` hangs on which ended
first. So results reach its tasks one at a time, and in a replay in the order in which
they were recorded, whatever order the function asks for them in.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from durable_jobs import ids
from durable_jobs.engine.idle_detection import TURNS, IdleDetector
from durable_jobs.store.steps import StepRecord

EARLIEST = datetime.min.replace(tzinfo=UTC)
#: Records that are no steps of their own.
UNASKED = frozenset({"group", "patch", "branch"})


class ResultOrder:
    """Lets the tasks that await steps go on, one after the other."""

    def __init__(
        self, activity: IdleDetector, run_id: uuid.UUID, recorded: Iterable[StepRecord]
    ) -> None:
        self._activity = activity
        ended = _asked_for(run_id, list(recorded))
        ended.sort(key=lambda memo: (memo.ended_at or EARLIEST, memo.position))
        self._ranks = {memo.key: rank for rank, memo in enumerate(ended)}
        self._expected = [memo.key for memo in reversed(ended)]
        self._served: set[str] = set()
        self._last: asyncio.Task[Any] | None = None
        self._serials = itertools.count(len(ended))
        self._queue: list[tuple[int, str, asyncio.Future[None]]] = []
        self._serving: asyncio.Task[None] | None = None

    def told(self) -> None:
        """Take all that had ended before as seen, by a function that knows it."""
        self._expected.clear()

    async def take(self, key: str) -> None:
        """Wait until the result of a step may be seen."""
        task = asyncio.current_task()
        if self._serving is None and self._is_next(key) and self._last in (None, task):
            self._served.add(key)
        else:
            await self._wait(key)
        self._last = task

    def _is_next(self, key: str) -> bool:
        """Tell whether no step ended before that the function may still await."""
        while self._expected and self._expected[-1] in self._served:
            self._expected.pop()
        return not self._expected or self._expected[-1] == key

    async def _wait(self, key: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rank = self._ranks.get(key)
        serial = next(self._serials) if rank is None else rank
        heapq.heappush(self._queue, (serial, key, turn))
        if self._serving is None:
            self._serving = asyncio.ensure_future(self._serve())
        await turn

    async def _serve(self) -> None:
        with self._activity.work():
            while self._queue:
                # Let what the last result has set going come to rest: it may await a
                # step that ended before these.
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                _, key, turn = heapq.heappop(self._queue)
                if not turn.done():
                    self._served.add(key)
                    turn.set_result(None)
            self._serving = None


def _asked_for(run_id: uuid.UUID, memos: Sequence[StepRecord]) -> list[StepRecord]:
    """Return the records of ended steps that the function itself may await.

    Not those below a step that has ended: that one answers for them.
    """
    by_id = {ids.step_pk(run_id, memo.key): memo for memo in memos}

    def answered(memo: StepRecord) -> bool:
        above = None if memo.parent is None else by_id.get(memo.parent)
        if above is None:
            return False
        return (above.ended and above.kind != "group") or answered(above)

    return [
        memo
        for memo in memos
        if memo.ended and memo.kind not in UNASKED and not answered(memo)
    ]
