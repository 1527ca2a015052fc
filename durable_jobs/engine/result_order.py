"""Deliver step results to an ``async def`` function in recorded order.

Code after ``asyncio.wait`` or ``as_completed`` depends on which step ended first. So
results reach the tasks one at a time. A replay delivers them in the order in which they
were recorded, and the function takes the same path.
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
from durable_jobs.engine.idle_detection import SETTLE_ITERATIONS, IdleDetector
from durable_jobs.store.steps import StepRecord

EARLIEST = datetime.min.replace(tzinfo=UTC)
#: Kinds of records that a function cannot await.
NOT_AWAITED = frozenset({"group", "patch", "branch"})


class ResultOrder:
    """Resumes the tasks that await steps, one after the other."""

    def __init__(
        self,
        idle_detector: IdleDetector,
        run_id: uuid.UUID,
        recorded: Iterable[StepRecord],
    ) -> None:
        self._idle_detector = idle_detector
        ended = _awaitable_records(run_id, list(recorded))
        ended.sort(
            key=lambda step_record: (
                step_record.ended_at or EARLIEST,
                step_record.position,
            )
        )
        self._ranks = {step_record.key: rank for rank, step_record in enumerate(ended)}
        self._expected = [step_record.key for step_record in reversed(ended)]
        self._delivered: set[str] = set()
        self._last: asyncio.Task[Any] | None = None
        self._serials = itertools.count(len(ended))
        self._queue: list[tuple[int, str, asyncio.Future[None]]] = []
        self._delivery: asyncio.Task[None] | None = None

    def mark_all_delivered(self) -> None:
        """Treat all recorded results as delivered."""
        self._expected.clear()

    async def wait_for(self, key: str) -> None:
        """Wait until the result of a step may be delivered."""
        task = asyncio.current_task()
        if self._delivery is None and self._is_next(key) and self._last in (None, task):
            self._delivered.add(key)
        else:
            await self._wait(key)
        self._last = task

    def _is_next(self, key: str) -> bool:
        """Return whether no other result has to be delivered before."""
        while self._expected and self._expected[-1] in self._delivered:
            self._expected.pop()
        return not self._expected or self._expected[-1] == key

    async def _wait(self, key: str) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        rank = self._ranks.get(key)
        serial = next(self._serials) if rank is None else rank
        heapq.heappush(self._queue, (serial, key, future))
        if self._delivery is None:
            self._delivery = asyncio.ensure_future(self._deliver())
        await future

    async def _deliver(self) -> None:
        with self._idle_detector.working():
            while self._queue:
                # Let the tasks that the last result resumed run first: they may await
                # a step that ended before the queued ones.
                for _ in range(SETTLE_ITERATIONS):
                    await asyncio.sleep(0)
                _, key, future = heapq.heappop(self._queue)
                if not future.done():
                    self._delivered.add(key)
                    future.set_result(None)
            self._delivery = None


def _awaitable_records(
    run_id: uuid.UUID, step_records: Sequence[StepRecord]
) -> list[StepRecord]:
    """Return the records of ended steps that the function itself may await.

    Steps below an ended step are left out: the function gets the result of that step.
    """
    by_id = {
        ids.step_pk(run_id, step_record.key): step_record
        for step_record in step_records
    }

    def covered(step_record: StepRecord) -> bool:
        parent = None if step_record.parent is None else by_id.get(step_record.parent)
        if parent is None:
            return False
        return (parent.ended and parent.kind != "group") or covered(parent)

    return [
        step_record
        for step_record in step_records
        if step_record.ended
        and step_record.kind not in NOT_AWAITED
        and not covered(step_record)
    ]
