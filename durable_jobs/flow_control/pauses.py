"""The pauses that operators have set: of functions, of their keys, and of queues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from durable_jobs import clock
from durable_jobs.flow_control import keys
from durable_jobs.models import Backlog, Pause
from durable_jobs.store import backlogs, db, pauses

#: Runs of a resumed function that become claimable at once.
RESTORED = 500
#: Queues of one function whose runs are restored at once.
MAX_QUEUES = 10


@dataclass(frozen=True, slots=True)
class Pauses:
    """All pauses: of functions, of keys by function, of queues."""

    functions: dict[str, Pause] = field(default_factory=dict)
    queues: set[str] = field(default_factory=set)
    keys: dict[str, dict[str, Pause]] = field(default_factory=dict)


def load() -> Pauses:
    """Return all pauses."""
    found = Pauses()
    for row in db.rows(Pause).all():
        if row.kind == Pause.QUEUE:
            found.queues.add(row.name)
        elif row.kind == Pause.FUNCTION:
            found.functions[row.name] = row
        else:
            found.keys.setdefault(row.name, {})[row.key] = row
    return found


def pause_of(pauses: Pauses, function: str, values: Iterable[Any]) -> Pause | None:
    """Return the pause that keeps runs of a function with these keys from starting."""
    return next(_over(pauses, function, values), None)


def _over(pauses: Pauses, function: str, values: Iterable[Any]) -> Iterator[Pause]:
    if function in pauses.functions:
        yield pauses.functions[function]
    if paused := pauses.keys.get(function):
        texts = (keys.key_text(value) for value in values)
        yield from (paused[text] for text in texts if text in paused)


def skips(
    pauses: Pauses, function: str, values: Iterable[Any], queued_at: datetime
) -> str | None:
    """Return why a pause skips a run; None if the run is kept or not paused.

    Runs that were queued before the pause are kept.
    """
    over = _over(pauses, function, values)
    pause = next((one for one in over if one.skip and one.paused_at <= queued_at), None)
    if pause is None:
        return None
    what = f"key {pause.key} of {function}" if pause.kind == Pause.KEY else function
    return f"{what} was paused{f': {pause.reason}' if pause.reason else '.'}"


def pause(kind: str, name: str, key: str = "", *, skip: bool, reason: str) -> bool:
    """Pause a function, key or queue; return whether this call did. Update ``skip``.

    If ``skip`` is set on an existing pause, the pause begins anew: runs that were
    queued before are kept.
    """
    rows, now = db.rows(Pause), clock.now()
    new = Pause(kind=kind, name=name, key=key, skip=skip, reason=reason, paused_at=now)
    known = rows.filter(kind=kind, name=name, key=key)
    begins = skip and not known.filter(skip=True).exists()
    if begins:
        pauses.separate_earlier_runs(name, now)
    if known.exists():
        anew = {"paused_at": now} if begins else {}
        known.update(skip=skip, reason=reason, **anew)
        return False
    rows.bulk_create([new], ignore_conflicts=True)
    return True


def resume(kind: str, name: str, key: str = "") -> bool:
    """End a pause; return whether this call did.

    The first runs may be claimed at once; the tick restores the others in batches.
    """
    rows = db.rows(Pause).filter(kind=kind, name=name, key=key)
    if not rows._raw_delete(db.alias()):
        return False
    if kind == Pause.FUNCTION:
        paused_backlogs = db.rows(Backlog).filter(function=name, keys={})
        left = RESTORED
        for backlog in paused_backlogs[:MAX_QUEUES]:
            left -= backlogs.restore_paused(backlog, left)
    return True


def restart_backlogs(backlog_rows: QuerySet[Backlog]) -> int:
    """Restart backlogs that are not paused; the caller holds the lock.

    Up to ``RESTORED`` kept runs become claimable. A backlog with more of them stays
    inactive.
    """
    pauses, count, left = load(), 0, RESTORED
    for backlog in backlog_rows.filter(active=False, blocked_on__isnull=True):
        if pause_of(pauses, backlog.function, backlog.keys.values()) is None:
            count += 1
            if not backlog.keys:
                left -= backlogs.restore_paused(backlog, left)
                if left <= 0:
                    return count
            backlogs.activate(db.rows(Backlog).filter(pk=backlog.pk))
    return count


def lock_pause(pause: Pause) -> Pause | None:
    """Lock a pause; return None if it has ended or is locked."""
    rows = db.rows(Pause).filter(pk=pause.pk)
    if db.lockable():
        rows = rows.select_for_update(skip_locked=True)
    return rows.first()


def set_aside_paused(function: str, limit: int, before: datetime | None = None) -> int:
    """Move up to ``limit`` runs of a function to where workers do not claim.

    Return how many were moved. ``before``: only runs that were queued until then.
    """
    count = backlogs.requeue_promoted(backlogs.promoted_unstarted(function), limit)
    for queue in backlogs.ready_queues(function):
        backlog = _paused_backlog(function, queue)
        count += backlogs.set_aside_paused(function, backlog, limit - count, before)
        if count >= limit:
            break
    return count


def _paused_backlog(function: str, queue: str) -> Backlog:
    """Return the backlog that keeps the runs of a paused function without limits.

    Admissions do not use it, so it may be created without the lock.
    """
    name = keys.digest(function, queue, "paused_backlog")
    row = Backlog(
        name=name,
        function=function,
        queue=queue,
        keys={},
        for_new_runs=True,
        eligible_at=clock.now(),
    )
    return backlogs.get_or_create(row)
