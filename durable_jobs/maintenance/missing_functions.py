"""Find live runs whose function no worker has, warn once, and resume them later.

During a rolling deploy this is normal: workers with the new code are about to start.
After ``UNKNOWN_AFTER`` it needs a person.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from durable_jobs import clock, notifier
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.durations import format_duration
from durable_jobs.events import routing
from durable_jobs.lifecycle import finish
from durable_jobs.models import Backlog, Run
from durable_jobs.signals import announce, run_changed
from durable_jobs.statuses import LIVE, RunStatus
from durable_jobs.store import db, item_errors, left_work, run_changes, workers

logger = logging.getLogger("durable_jobs")

#: The reason of runs that an older version paused starts with this.
PAUSED_BEFORE = "The code has no durable function "
#: Seconds between two searches for such runs, and how many one search resumes.
RESUME_INTERVAL = 60.0
BATCH = 500
#: Functions without a worker that one sweep finds among the runs behind limits.
MAX_NAMES = 100

#: Functions with backlogs that one sweep checks.
MAX_FUNCTIONS = 500

_searched_at = float("-inf")


def sweep() -> int:
    """Record, warn of and clear functions that no worker has; return how many changed.

    Also resume runs that an older version paused because of their function.
    """
    global _searched_at
    known = registry.ids()
    for name in _behind_limits(known):
        workers.record_missing(name)
    count = _check_missing(set(known))
    if clock.monotonic() >= _searched_at + RESUME_INTERVAL:
        _searched_at = clock.monotonic()
        count += resume(known) + do_left(known)
    return count


def do_left(known: Iterable[str]) -> int:
    """Start handlers and cancel runs for which an earlier process lacked the function.

    Return how many were done.
    """
    names, done = list(known), 0
    for row, run in left_work.handlers(names, BATCH):
        work = partial(finish.start_left_handler, row, run)
        done += item_errors.guarded("left handler", run.pk, work, run_id=run.pk)
    for row, run in left_work.cancellations(names, BATCH):
        work = partial(routing.cancel_left, row, run)
        done += item_errors.guarded("left cancellation", row.item, work, run_id=run.pk)
    return done


def _behind_limits(known: list[str]) -> set[str]:
    """Return unknown functions of runs behind limits, which no claim meets."""
    arrived = db.rows(Run).filter(
        status=RunStatus.QUEUED, backlog__lt=0, due_at__lte=clock.now()
    )
    arrived = arrived.exclude(function__in=known).order_by("due_at")
    names = _functions_with_backlogs() - set(known)
    return names | set(arrived.values_list("function", flat=True)[:MAX_NAMES])


def _functions_with_backlogs() -> set[str]:
    """Return functions with backlogs, with one index lookup per function."""
    rows = db.rows(Backlog).order_by("function")
    functions = rows.values_list("function", flat=True)
    found: list[str] = []
    name: str | None = ""
    while len(found) < MAX_FUNCTIONS:
        name = functions.filter(function__gt=name).first()
        if name is None:
            break
        found.append(name)
    return set(found)


def _check_missing(known: set[str]) -> int:
    rows = list(workers.missing())
    if not rows:
        return 0
    served = workers.functions() or set()
    resolved, count = [], 0
    for row in rows:
        if row.function in known | served or not _live(row.function):
            resolved.append(row.function)
        elif not row.warned and clock.now() - row.since >= settings.UNKNOWN_AFTER:
            count += _warn(row.function, clock.now() - row.since)
    if resolved:
        workers.delete_missing(resolved)
    return count + len(resolved)


def _live(function: str) -> bool:
    rows = db.rows(Run).filter(function=function, status__in=sorted(LIVE))
    return rows.exists()


def _warn(function: str, length: timedelta) -> int:
    """Warn of a function without a worker, once for all processes."""
    rows = workers.missing().filter(function=function, warned=False)
    warned = rows.update(warned=True)
    if warned:
        logger.warning(
            "No worker has had the function %r for %s: its runs stay queued. Deploy "
            "a worker that has it, or cancel them.",
            function,
            format_duration(timedelta(seconds=round(length.total_seconds()))),
        )
    return warned


def began(queues: Iterable[str]) -> None:
    """Resume runs that waited for the functions of a worker that starts."""
    workers.delete_missing(registry.ids())
    resume(registry.ids())
    do_left(registry.ids())
    for queue in queues:
        notifier.notify_now(queue)


def resume(known: Iterable[str]) -> int:
    """Resume runs that an older version paused because it lacked their function."""
    rows = db.rows(Run).filter(
        status=RunStatus.PAUSED,
        function__in=list(known),
        reason__startswith=PAUSED_BEFORE,
    )
    done: list[Run] = []
    for run in rows.order_by("pk").only("function", "queue")[:BATCH]:
        work = partial(_resume, run, done)
        item_errors.guarded("paused run", run.pk, work, run_id=run.pk)
    return len(done)


def _resume(run: Run, done: list[Run]) -> None:
    if not run_changes.resume(run.pk):
        return
    done.append(run)
    announce(
        run_changed,
        run_id=run.pk,
        function=run.function,
        status=RunStatus.QUEUED,
        reason="",
    )
    notifier.notify(run.queue)
