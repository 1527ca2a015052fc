"""Limits, their slots, and the admission lock.

Slots are acquired only under the lock, so that their count is exact. The end or the
suspension of a run releases its slots without the lock. A release only frees slots, and
the next admission counts them.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db.models import Count, Q, QuerySet

from durable_jobs import clock
from durable_jobs.models import Limit, RateLimitHit, Run, Slot
from durable_jobs.store import db

#: The number of the advisory lock: the letters "durable".
LOCK = 0x64757261626C65
_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
_LOCK = (
    "SELECT set_config('synchronous_commit', 'off', true), "
    f"pg_advisory_xact_lock({LOCK})"
)
#: How often ``used_at`` of a limit in use is updated.
USED_AT_INTERVAL = timedelta(hours=1)


def lock() -> None:
    """Acquire the admission lock until the caller's transaction ends.

    A lost commit of an admission does no harm, so the commit does not wait for the
    disk.
    """
    if db.is_postgres():
        # A snapshot older than the lock would miss slots that others have acquired.
        outermost = len(db.connection().atomic_blocks) == 1
        with db.connection().cursor() as cursor:
            cursor.execute(_COMMITTED + _LOCK if outermost else _LOCK)
        return
    # This row is only a lock. On SQLite, an update locks the whole database.
    name = "admission"
    rows = db.rows(Limit).filter(name=name)
    if not rows.update(used_at=clock.now()):
        row = Limit(name=name, control="lock", used_at=clock.now())
        db.rows(Limit).bulk_create([row], ignore_conflicts=True)
        rows.update(used_at=clock.now())


@contextmanager
def locked() -> Iterator[None]:
    """Open a transaction with the admission lock, to write backlogs and slots."""
    with db.atomic():
        lock()
        yield


def ensure(wanted: Iterable[Limit]) -> dict[str, Limit]:
    """Return the rows of limits by name; create the missing rows."""
    by_name = {limit_row.name: limit_row for limit_row in wanted}
    rows = db.rows(Limit).filter(name__in=list(by_name))
    found = {limit_row.name: limit_row for limit_row in rows}
    missing = [limit_row for name, limit_row in by_name.items() if name not in found]
    if missing:
        db.rows(Limit).bulk_create(missing)
        found |= {limit_row.name: limit_row for limit_row in missing}
    now = clock.now()
    stale = [
        limit_row.pk
        for limit_row in found.values()
        if limit_row.used_at < now - USED_AT_INTERVAL
    ]
    if stale:
        db.rows(Limit).filter(pk__in=stale).update(used_at=now)
    return found


def count_held(limit_ids: Iterable[int]) -> Counter[int]:
    """Return the number of held slots of each limit."""
    rows = (
        _held()
        .filter(limit_id__in=list(limit_ids))
        .values_list("limit_id")
        .annotate(count=Count("pk"))
        .order_by()
    )
    return Counter(dict(rows))


def holders(limit_id: int) -> QuerySet[Slot]:
    """Return the held slots of a limit, oldest first."""
    return _held().filter(limit_id=limit_id).order_by("pk")


def held_by(
    limit_ids: Iterable[int], run_ids: Iterable[uuid.UUID]
) -> set[tuple[int, uuid.UUID]]:
    """Return ``(limit_id, run_id)`` for each slot that the runs hold at the limits."""
    rows = _held().filter(limit_id__in=list(limit_ids), run_id__in=list(run_ids))
    return set(rows.values_list("limit_id", "run_id"))


def _held() -> QuerySet[Slot]:
    return db.rows(Slot).filter(released_at__isnull=True)


def acquire(slots: Sequence[Slot]) -> None:
    """Insert slots. The caller holds the admission lock."""
    if slots:
        db.rows(Slot).bulk_create(slots)


def release_slots(run_ids: Iterable[uuid.UUID], *, steps_only: bool = False) -> int:
    """Release the slots of runs, or with ``steps_only`` only those of their steps."""
    rows = _held().filter(run_id__in=list(run_ids))
    if steps_only:
        rows = rows.filter(steps=True)
    return rows.update(released_at=clock.now())


def release_leased_step_slots(run_ids: Iterable[uuid.UUID], token: uuid.UUID) -> int:
    """Release the slots of the steps of runs under a lease."""
    held = db.rows(Run).filter(
        pk__in=list(run_ids), lease_token=token, requeue_to__isnull=False
    )
    if db.lockable():
        # A new claim of the run waits until its slots are released.
        held = held.select_for_update(no_key=True)
    chosen = list(held.order_by("pk").values_list("pk", flat=True))
    return release_slots(chosen, steps_only=True) if chosen else 0


def release_unleased_step_slots(run_id: uuid.UUID) -> int:
    """Release the slots of the steps of a run without a lease."""
    free = db.rows(Run).filter(
        pk=run_id, lease_token__isnull=True, requeue_to__isnull=False
    )
    return release_slots([run_id], steps_only=True) if free.exists() else 0


def release_slots_by_id(slot_ids: Iterable[int]) -> int:
    """Release single slots."""
    return _held().filter(pk__in=list(slot_ids)).update(released_at=clock.now())


def is_released() -> Q:
    """Return the condition of released slots that are not deleted yet."""
    return Q(released_at__isnull=False)


def released_slots(limit_ids: Iterable[int]) -> list[Slot]:
    """Return the released slots of limits that are not deleted yet."""
    rows = db.rows(Slot).filter(is_released())
    return list(rows.filter(limit_id__in=list(limit_ids)))


def delete_released_slots() -> Counter[int]:
    """Delete released slots under the lock; return their number by limit."""
    rows = db.rows(Slot).filter(is_released())
    found = list(rows.values_list("pk", "limit_id"))
    if found:
        every = db.rows(Slot).filter(pk__in=[pk for pk, _ in found])
        every._raw_delete(db.alias())
    return Counter(limit_row for _, limit_row in found)


def set_tats(tats: dict[int, datetime]) -> None:
    """Write the theoretical arrival times of throttles."""
    for pk, tat in tats.items():
        db.rows(Limit).filter(pk=pk).update(tat=tat)


def set_error(name: str, error: str) -> None:
    """Record the error of a dynamic limit's callable, or an empty string."""
    rows = db.rows(Limit).filter(name=name)
    rows.exclude(error=error).update(error=error)


def hits(limit_id: int, since: datetime, until: datetime) -> list[datetime]:
    """Return the times of the hits of a rate limit between two times, in order."""
    rows = db.rows(RateLimitHit).filter(limit_id=limit_id, at__gt=since, at__lt=until)
    return list(rows.order_by("at").values_list("at", flat=True))


def record_hits(rows: Sequence[RateLimitHit]) -> None:
    """Insert hits of rate limits."""
    if rows:
        db.rows(RateLimitHit).bulk_create(rows)
