"""Find and restart stalled backlogs. Runs every few seconds and usually finds none.

This covers what admissions and ends of runs miss: limits that changed in the code or by
callables, slots whose release was lost, claimable runs of paused functions, and unused
backlogs and limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db.models import Exists, F, Model, OuterRef, Q, QuerySet

from durable_jobs import clock
from durable_jobs.definitions.flow_control import FlowControl
from durable_jobs.definitions.registry import registry
from durable_jobs.flow_control import pauses
from durable_jobs.lifecycle import admission
from durable_jobs.models import Backlog, Limit, Pause, RateLimitHit, Run, Slot
from durable_jobs.statuses import LIVE, RunStatus
from durable_jobs.store import backlogs, db, exists_probe, item_errors, limits

BATCH = 500
#: Backlogs and limits are deleted after this time without use.
UNUSED = timedelta(days=2)


def sweep() -> int:
    """Restart stalled backlogs and clean up; return how much was done."""
    now = clock.now()
    admission.unfinished.clear()
    results = _probe.evaluate([now, now - UNUSED])
    done: list[int] = []
    for name, there in results.items():
        if there:
            item_errors.guarded(
                "upkeep", name, partial(_run_upkeep, name, done), pauses=False
            )
    return sum(done)


def _run_upkeep(name: str, done: list[int]) -> None:
    done.append(_UPKEEP[name]())


def _every(kind: type[Model]) -> QuerySet[Any]:
    return kind._default_manager.using(db.alias()).all()


def lost_slots() -> QuerySet[Slot]:
    """Return slots of runs that may not hold one."""
    runs = db.rows(Run).filter(pk=OuterRef("run_id"))
    promoted = Q(status=RunStatus.QUEUED, backlog__isnull=True)
    executing = promoted | Q(lease_token__isnull=False)
    held = db.rows(Slot).filter(released_at__isnull=True)
    live = Exists(runs.filter(status__in=sorted(LIVE)))
    return held.filter(~live | Q(steps=True) & ~Exists(runs.filter(executing)))


def _release_lost() -> int:
    lost = list(lost_slots().values_list("pk", flat=True)[:BATCH])
    return item_errors.guarded_batch("slot", lost, limits.release_slots_by_id)


#: The flow control of each function, as this process last saw it.
_declared: dict[str, FlowControl] = {}


def _restart_changed() -> int:
    """Restart backlogs whose limits may have changed in the code of a new process."""
    declared = {function.id: function.flow_control for function in registry}
    changed = [id for id, controls in declared.items() if _declared.get(id) != controls]
    if not changed:
        return 0
    _declared.clear()
    _declared.update(declared)
    rows = db.rows(Backlog).filter(function__in=changed)
    with limits.locked():
        for function in changed:
            if declared[function].throttle is not None:
                backlogs.make_eligible(_every(Backlog).filter(function=function))
        return backlogs.activate(rows.filter(blocked_on__isnull=False))


def _restart_at_limits() -> int:
    """Restart one backlog at each limit that backlogs wait for: there may be room."""
    chosen = list(_waited_for().order_by("?").values_list("pk", flat=True)[:BATCH])
    done: list[int] = []

    def restart(limit_row: int) -> None:
        with limits.locked():
            done.append(backlogs.unblock(limit_row, 1))

    for limit_row in sorted(chosen):
        item_errors.guarded("limit", limit_row, partial(restart, limit_row))
    return sum(done)


def _waited_for() -> QuerySet[Limit]:
    """Return the limits that backlogs wait for."""
    waiting = _every(Backlog).filter(blocked_on=OuterRef("pk"))
    return _every(Limit).filter(Exists(waiting))


def _restart_inactive() -> int:
    """Restart inactive backlogs that wait for no limit, written from stale reads.

    Also restore runs that a pause kept, in batches, for up to a second.
    """
    until, total = clock.monotonic() + admission.LONGEST, 0
    while True:
        chosen = list(_inactive().order_by("?").values_list("pk", flat=True)[:BATCH])
        done = _restart_batch(chosen)
        total += done
        if not done:
            return total
        if clock.monotonic() > until:
            admission.unfinished.add("inactive_backlogs")
            return total


def _restart_batch(chosen: Sequence[int]) -> int:
    done: list[int] = []

    def start(keys: Sequence[Any]) -> None:
        with limits.locked():
            done.append(pauses.restart_backlogs(_every(Backlog).filter(pk__in=keys)))

    item_errors.guarded_batch("backlog", chosen, start)
    return sum(done)


def _inactive() -> QuerySet[Backlog]:
    """Return inactive backlogs with runs that wait for no limit."""
    rows = _every(Backlog).filter(active=False, blocked_on__isnull=True)
    return rows.filter(Exists(_queued_in_backlog()))


def _screen_again() -> int:
    """Screen runs again whose backlog no longer exists, as after a restored backup."""
    rows = backlogs.runs_without_backlog().values_list("pk", flat=True)[:BATCH]

    def screen(keys: Sequence[Any]) -> None:
        chosen = db.rows(Run).filter(pk__in=keys)
        chosen.filter(status=RunStatus.QUEUED).update(backlog=F("requeue_to"))

    return item_errors.guarded_batch("run without backlog", list(rows), screen)


def _queued_in_backlog() -> QuerySet[Run]:
    """Return the queued runs of the backlog in the outer query."""
    return db.rows(Run).filter(
        status=RunStatus.QUEUED, backlog__isnull=False, backlog=OuterRef("pk")
    )


def _delete_hits() -> int:
    """Delete hits that are outside of every rate limit's window."""
    chosen = list(_expired(clock.now()).values_list("pk", flat=True)[:BATCH])

    def delete(keys: Sequence[Any]) -> None:
        _every(RateLimitHit).filter(pk__in=keys)._raw_delete(db.alias())

    return item_errors.guarded_batch("rate limit hit", chosen, delete)


def _expired(now: datetime) -> QuerySet[RateLimitHit]:
    return _every(RateLimitHit).filter(expires_at__lt=now)


def _delete_backlogs() -> int:
    """Delete unused backlogs."""
    return _delete(_idle_backlogs(clock.now() - UNUSED))


def _idle_backlogs(unused: datetime) -> QuerySet[Backlog]:
    """Return the empty backlogs that were not used since a time."""
    rows = _every(Backlog).filter(eligible_at__lt=unused, active=False)
    return rows.exclude(Exists(_queued_in_backlog()))


def _delete_limits() -> int:
    """Delete unused limits."""
    now = clock.now()
    return _delete(_idle_limits(now, now - UNUSED))


def _idle_limits(now: datetime, unused: datetime) -> QuerySet[Limit]:
    """Return limits that were not used since a time and that no row refers to."""
    rows = _every(Limit).filter(
        Q(tat__isnull=True) | Q(tat__lt=now),
        used_at__lt=unused,
        override__isnull=True,
    )
    for model in (Slot, RateLimitHit):
        of_limit = _every(model).filter(limit=OuterRef("pk"))
        rows = rows.exclude(Exists(of_limit))
    return rows.exclude(Exists(_every(Backlog).filter(blocked_on=OuterRef("pk"))))


def _delete(rows: QuerySet[Backlog] | QuerySet[Limit]) -> int:
    """Delete a batch under the lock, so that no admission uses the rows."""

    def delete(keys: Sequence[Any]) -> None:
        with limits.locked():
            # Filtered again under the lock: a row may be in use by now.
            rows.filter(pk__in=keys)._raw_delete(db.alias())

    chosen = list(rows.values_list("pk", flat=True)[:BATCH])
    return item_errors.guarded_batch(rows.model._meta.model_name or "", chosen, delete)


def _work_queries(now: datetime, unused: datetime) -> dict[str, Exists]:
    """Return the queries that show which work there is, by its name."""
    paused = _every(Pause).exclude(kind=Pause.KEY)
    return {
        "lost_slots": Exists(lost_slots()),
        "changed_limits": Exists(_every(Backlog)),
        "limits_with_backlogs": Exists(_waited_for()),
        "inactive_backlogs": Exists(_inactive()),
        "runs_without_backlog": Exists(backlogs.runs_without_backlog()),
        "paused": Exists(paused),
        "rate_limit_hits": Exists(_expired(now)),
        "backlogs": Exists(_idle_backlogs(unused)),
        "limits": Exists(_idle_limits(now, unused)),
    }


_probe = exists_probe.Probe(_work_queries)

_UPKEEP: dict[str, Callable[[], int]] = {
    "lost_slots": _release_lost,
    "changed_limits": _restart_changed,
    "limits_with_backlogs": _restart_at_limits,
    "inactive_backlogs": _restart_inactive,
    "runs_without_backlog": _screen_again,
    "paused": admission.set_aside_paused,
    "rate_limit_hits": _delete_hits,
    "backlogs": _delete_backlogs,
    "limits": _delete_limits,
}
