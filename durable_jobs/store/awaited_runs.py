"""Runs that other runs wait for, besides their parent.

If a step invokes a function with an idempotency key that a run already has, the step
waits for that run. It marks the run as awaited under the run's lock. If the mark comes
first, the end of the run makes the waits due. If the end comes first, the step sees the
ended run. The sweep of timers ends the waits. Each wait is also due from time to time,
in case a worker with an older version ended the run.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime

from django.db.models import QuerySet

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.models import Run, Wait, WaitKind
from durable_jobs.statuses import LIVE
from durable_jobs.store import db


def mark(run_id: uuid.UUID) -> bool:
    """Mark a run as awaited; return whether the run is live.

    The row is locked until the caller's transaction ends.
    """
    live = db.rows(Run).filter(pk=run_id, status__in=sorted(LIVE))
    return bool(live.update(awaited=True))


def announce(run_id: uuid.UUID) -> None:
    """Make the waits for an ended run due, in the transaction that ends it."""
    _waits([run_id]).update(due_at=clock.now())


def next_check(since: datetime) -> datetime:
    """Return when a wait that began at ``since`` must check its run again."""
    now = clock.now()
    return now + max(settings.LEASE_DURATION, now - since)


def queues(run_id: uuid.UUID) -> set[str]:
    """Return the queues of the runs that wait for a run."""
    runs = db.rows(Run).filter(pk__in=_waits([run_id]).values("run_id"))
    return set(runs.values_list("queue", flat=True))


def waits_for(run_id: uuid.UUID, other: uuid.UUID) -> bool:
    """Return whether ``run_id`` is ``other``, or waits for it directly or not."""
    seen = {other}
    level = {other}
    while level and run_id not in level:
        level = {*_waits(level).values_list("run_id", flat=True)} - seen
        seen |= level
    return run_id in level


def _waits(run_ids: Iterable[uuid.UUID]) -> QuerySet[Wait]:
    names = [str(run_id) for run_id in run_ids]
    return db.rows(Wait).filter(kind=WaitKind.CHILD, name__in=names)
