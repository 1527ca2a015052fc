"""Limits, their slots, and the one lock under which runs are admitted.

Slots are taken under the lock alone, so that counting them is exact. They are released
by whoever ends a run or lets it rest, without the lock: that only makes room, and the
next admission sees it.
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

#: The lock's number in the database's space of advisory locks: "durable" in letters.
LOCK = 0x64757261626C65
_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
_LOCK = (
    "SELECT set_config('synchronous_commit', 'off', true), "
    f"pg_advisory_xact_lock({LOCK})"
)
NOTED_EVERY = timedelta(hours=1)


def lock() -> None:
    """Wait for the lock, which ends with the caller's transaction.

    Losing a commit made under it loses nothing, so it need not wait for the disk.
    """
    if db.is_postgres():
        # A snapshot that is older than the lock would not see what others have taken.
        outermost = len(db.connection().atomic_blocks) == 1
        with db.connection().cursor() as cursor:
            cursor.execute(_COMMITTED + _LOCK if outermost else _LOCK)
        return
    # The row is a lock and nothing else. On SQLite an update takes the whole database.
    name = "admission"
    rows = db.rows(Limit).filter(name=name)
    if not rows.update(used_at=clock.now()):
        row = Limit(name=name, control="lock", used_at=clock.now())
        db.rows(Limit).bulk_create([row], ignore_conflicts=True)
        rows.update(used_at=clock.now())


@contextmanager
def locked() -> Iterator[None]:
    """Hold the lock for a transaction: whoever writes backlogs or takes slots does."""
    with db.atomic():
        lock()
        yield


def ensure(wanted: Iterable[Limit]) -> dict[str, Limit]:
    """Return the rows of limits by name; those that are new are written."""
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
        if limit_row.used_at < now - NOTED_EVERY
    ]
    if stale:
        db.rows(Limit).filter(pk__in=stale).update(used_at=now)
    return found


def count_held(limit_ids: Iterable[int]) -> Counter[int]:
    """Count the slots that are held at limits."""
    rows = (
        _held()
        .filter(limit_id__in=list(limit_ids))
        .values_list("limit_id")
        .annotate(count=Count("pk"))
        .order_by()
    )
    return Counter(dict(rows))


def holders(limit_id: int) -> QuerySet[Slot]:
    """Return the slots that are held at a limit, the oldest first."""
    return _held().filter(limit_id=limit_id).order_by("pk")


def held_by(
    limit_ids: Iterable[int], run_ids: Iterable[uuid.UUID]
) -> set[tuple[int, uuid.UUID]]:
    """Return which of some runs hold a slot at which of some limits."""
    rows = _held().filter(limit_id__in=list(limit_ids), run_id__in=list(run_ids))
    return set(rows.values_list("limit_id", "run_id"))


def _held() -> QuerySet[Slot]:
    return db.rows(Slot).filter(released_at__isnull=True)


def acquire(slots: Sequence[Slot]) -> None:
    """Write slots, under the lock."""
    if slots:
        db.rows(Slot).bulk_create(slots)


def release(run_ids: Iterable[uuid.UUID], *, steps_only: bool = False) -> int:
    """Release the slots of runs: all, or with ``steps_only`` those of their steps."""
    rows = _held().filter(run_id__in=list(run_ids))
    if steps_only:
        rows = rows.filter(steps=True)
    return rows.update(released_at=clock.now())


def release_held(run_ids: Iterable[uuid.UUID], token: uuid.UUID) -> int:
    """Release the slots of the steps of runs that are held under a lease."""
    held = db.rows(Run).filter(
        pk__in=list(run_ids), lease_token=token, requeue_to__isnull=False
    )
    if db.lockable():
        # Whoever takes a run over waits until the slots that it had are released.
        held = held.select_for_update(no_key=True)
    chosen = list(held.order_by("pk").values_list("pk", flat=True))
    return release(chosen, steps_only=True) if chosen else 0


def release_unheld(run_id: uuid.UUID) -> int:
    """Release the slots of the steps of a run that nobody executes."""
    free = db.rows(Run).filter(
        pk=run_id, lease_token__isnull=True, requeue_to__isnull=False
    )
    return release([run_id], steps_only=True) if free.exists() else 0


def release_slots(slot_ids: Iterable[int]) -> int:
    """Release single slots."""
    return _held().filter(pk__in=list(slot_ids)).update(released_at=clock.now())


def any_released() -> Q:
    """Return the condition of slots that were released and not yet collected."""
    return Q(released_at__isnull=False)


def released(limit_ids: Iterable[int]) -> list[Slot]:
    """Return the released slots of limits that no admission has collected."""
    rows = db.rows(Slot).filter(any_released())
    return list(rows.filter(limit_id__in=list(limit_ids)))


def collect() -> Counter[int]:
    """Delete released slots, under the lock; count them by limit."""
    rows = db.rows(Slot).filter(any_released())
    found = list(rows.values_list("pk", "limit_id"))
    if found:
        every = db.rows(Slot).filter(pk__in=[pk for pk, _ in found])
        every._raw_delete(db.alias())
    return Counter(limit_row for _, limit_row in found)


def set_tats(tats: dict[int, datetime]) -> None:
    """Move the theoretical arrival times of throttles."""
    for pk, tat in tats.items():
        db.rows(Limit).filter(pk=pk).update(tat=tat)


def set_error(name: str, trouble: str) -> None:
    """Note why the limit of a limit is not known; empty when it is."""
    rows = db.rows(Limit).filter(name=name)
    rows.exclude(error=trouble).update(error=trouble)


def hits(limit_id: int, since: datetime, until: datetime) -> list[datetime]:
    """Return the starts that a rate limit has let in between two moments, in order."""
    rows = db.rows(RateLimitHit).filter(limit_id=limit_id, at__gt=since, at__lt=until)
    return list(rows.order_by("at").values_list("at", flat=True))


def record_hits(rows: Sequence[RateLimitHit]) -> None:
    """Write starts that rate limits have let in."""
    if rows:
        db.rows(RateLimitHit).bulk_create(rows)
