"""One tick: check in one query which work is due, and run only those sweepers.

Twice at once or none for a while is harmless: every sweeper decides by the rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

from django.db.models import Exists

from durable_jobs import clock, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.engine.isolation import isolated
from durable_jobs.events import routing
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import admission
from durable_jobs.maintenance import (
    heartbeats,
    missing_functions,
    rescue,
    retention,
    run_stats,
    stalled_backlogs,
    timers,
)
from durable_jobs.models import Run, Schedule, Wait, Worker
from durable_jobs.schedules import fire, sync
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, events, exists_probe, item_errors, pauses

logger = logging.getLogger("durable_jobs")

TICK = "tick"
HEARTBEAT_INTERVAL = timedelta(seconds=10)
#: Work for which no run waits; done when a tick is recorded.
LOW_PRIORITY = frozenset(
    {"heartbeat", "schedules", "retention", "run_stats", "missing_functions"}
)


def tick(*, passing: bool = False) -> dict[str, int]:
    """Run the sweepers that have work; return what each did, by name.

    ``passing``: another tick follows at once, and runs the sweepers that no run waits
    for.
    """
    failpoint("tick.begin")
    work = pending()
    if passing:
        work -= LOW_PRIORITY
    done = {}
    for name, sweep in _SWEEPS.items():
        if name in work:
            done[name] = _guarded(name, sweep)
    if "heartbeat" in work:
        record_tick()
    failpoint("tick.done")
    return done


def pending() -> set[str]:
    """Return the names of work that is due, in one query over small partial indexes."""
    now = clock.now()
    known = tuple(registry.ids())
    results = _probe.evaluate([now, now - HEARTBEAT_INTERVAL], known)
    work = {name for name, there in results.items() if there}
    if work & admission.ALL_WORK:
        work = work - admission.ALL_WORK | {"rate_limit_hits"}
    if admission.unfinished:
        work.add("backlogs")
    if "recently_recorded" not in work:
        work |= {"crons", "backlogs", *LOW_PRIORITY}
    return work - {"recently_recorded"}


def _work_queries(
    now: datetime, recent: datetime, known: tuple[str, ...]
) -> dict[str, Exists]:
    runs = db.rows(Run)
    waits = db.rows(Wait)
    schedules = db.rows(Schedule)
    return {
        "timers": Exists(waits.filter(due_at__isnull=False, due_at__lte=now)),
        "leases": Exists(runs.filter(lease_token__isnull=False, lease_until__lt=now)),
        "events": Exists(events.unrouted(now)),
        "queues": Exists(
            runs.filter(status=RunStatus.QUEUED, backlog__isnull=True, due_at__lte=now)
        ),
        "crons": Exists(schedules.filter(due_at__lte=now)),
        "recently_recorded": Exists(
            db.rows(Worker).filter(name=TICK, seen_at__gt=recent)
        ),
        **admission.work_queries(now, known),
    }


_probe = exists_probe.Probe(_work_queries)


def _guarded(name: str, sweep: Callable[[], int]) -> int:
    """Run a sweeper; log a failure, so that the other sweepers run."""
    try:
        return isolated(sweep)
    except Exception as error:  # a failed sweeper must not stop the others
        if not db.is_outage(error):
            logger.exception("The sweeper of %s failed; the next tick retries.", name)
        if not db.connection().in_atomic_block:
            db.connection().close_if_unusable_or_obsolete()
        return 0


def renotify() -> int:
    """Notify the queues that have eligible runs, in case a wake-up was lost."""
    count = 0
    for queue in exists_probe.walk(_eligible, [clock.now()]):
        notify = partial(notifier.notify, queue)
        count += item_errors.guarded("queue", queue, notify, pauses=False)
    return count


def _eligible_in(now: datetime, queue: str) -> exists_probe.Queries:
    queued = db.rows(Run).filter(status=RunStatus.QUEUED, backlog__isnull=True)
    # As claims select them: paused runs cannot be claimed.
    ready = (
        queued.filter(due_at__lte=now, queue=queue)
        .exclude(started_at__isnull=True, function__in=pauses.functions())
        .exclude(Exists(pauses.of_queue(queue)))
    )
    others = queued.filter(queue__gt=queue).order_by("queue")
    return {
        "here": Exists(ready),
        "next": others.values_list("queue", flat=True)[:1],
    }


_eligible = exists_probe.Probe(_eligible_in)


def seconds_since_tick() -> float:
    """Return the seconds since the last recorded tick; infinite without one."""
    rows = db.rows(Worker).filter(name=TICK)
    seen = rows.values_list("seen_at", flat=True).first()
    return float("inf") if seen is None else (clock.now() - seen).total_seconds()


def record_tick() -> None:
    """Record a heartbeat of the tick."""
    heartbeats.heartbeat(TICK, "beat")


_SWEEPS: dict[str, Callable[[], int]] = {
    "timers": timers.sweep,
    "leases": rescue.sweep,
    "events": routing.route_pending,
    "schedules": sync.sync,
    "crons": fire.sweep,
    # Before "backlogs" deletes old hits, which screening may still need.
    "rate_limit_hits": admission.sweep,
    "backlogs": stalled_backlogs.sweep,
    "queues": renotify,
    "retention": retention.sweep,
    "run_stats": run_stats.sweep,
    "missing_functions": missing_functions.sweep,
}
