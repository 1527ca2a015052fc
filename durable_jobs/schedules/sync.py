"""The sweeper of schedules: those of the code and those of users, in one table.

Whoever locks a row that is due moves it on and starts its runs, in one transaction.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.db import IntegrityError

from durable_jobs import clock
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Cron
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.models import Schedule
from durable_jobs.schedules import fire as fire_schedules
from durable_jobs.schedules import occurrences
from durable_jobs.store import db, item_errors, schedules, workers

logger = logging.getLogger("durable_jobs")

BATCH = 500
#: Runs that one transaction starts, more or less.
MOST_STARTS = 2 * BATCH
#: When a schedule is looked at again that only other living workers know.
SOON = timedelta(seconds=2)


def sync() -> int:
    """Note the crons that the code declares, and what it has again; count changes."""
    declared = registry.crons()
    rows = db.rows(Schedule).filter(
        declared=True, function__in={function.id for function, _ in declared}
    )
    known = {(row.function, row.cron, row.tz): row for row in rows.defer("data")}
    changes: list[bool] = []
    for function, cron in declared:
        schedule = known.get((function.id, cron.text, cron.tz))
        work = partial(_synced, function, cron, schedule, changes)
        item_errors.guarded("cron", f"{function.id} {cron.text} {cron.tz}", work)
    return sum(changes) + schedules.found_again((f.id for f in registry), clock.now())


def _synced(
    function: Function, cron: Cron, schedule: Schedule | None, changes: list[bool]
) -> None:
    if schedule is None:
        changes.append(_add(function, cron))
    else:
        changes.append(_renew(schedule, cron))


def _add(function: Function, cron: Cron) -> bool:
    """Note when a new cron fires first; another beat may have done it."""
    now = clock.now()
    schedule = Schedule(
        function=function.id,
        cron=cron.text,
        tz=cron.tz,
        declared=True,
        jitter=cron.spread,
        catch_up=cron.catch_up,
        overlap=cron.overlap,
        next_occurrence=cron.expression.next_after(now),
        created_at=now,
    )
    # Its first look finds out about the jitter, for which it needs its id.
    schedule.due_at = schedule.next_occurrence
    try:
        with db.atomic():
            db.insert(schedule)
    except IntegrityError:
        logger.debug("Schedule %s of %s was there.", cron.text, function.id)
        return False
    return True


def _renew(schedule: Schedule, cron: Cron) -> bool:
    """Take over what the code says now, if it is other than the row."""
    said: dict[str, Any] = {
        "jitter": cron.spread,
        "catch_up": cron.catch_up,
        "overlap": cron.overlap,
    }
    changes = {k: v for k, v in said.items() if getattr(schedule, k) != v}
    if schedule.missing_at is not None:
        changes["missing_at"] = None
        if not schedule.is_paused:
            changes["due_at"] = clock.now()
    if not changes:
        return False
    row = db.rows(Schedule).filter(pk=schedule.pk)
    return bool(row.update(**changes))


def sweep() -> int:
    """Fire what is due; return how many runs that started."""
    fired = 0
    while True:
        try:
            with db.atomic():
                looked, started = _fire(schedules.due(BATCH))
            if looked:
                failpoint("cron.committed")
        except Exception as error:
            if db.lost(error):
                raise
            logger.exception("A batch of schedules failed: each is tried by itself.")
            looked, started = _one_by_one()
        fired += started
        if not looked:
            return fired


def _one_by_one() -> tuple[int, int]:
    """Fire a batch, each in its own transaction; put off those that fail."""
    rows = db.rows(Schedule).filter(due_at__lte=clock.now())
    chosen = list(rows.order_by("due_at").values_list("pk", flat=True)[:BATCH])
    started: list[int] = []
    for pk in chosen:
        item_errors.guarded(
            "schedule",
            pk,
            partial(_alone, pk, started),
            put_off=partial(schedules.put_off, pk),
        )
    return len(chosen), sum(started)


def _alone(pk: int, started: list[int]) -> None:
    with db.atomic():
        due = schedules.rows().filter(pk=pk, due_at__lte=clock.now())
        started.append(_fire(list(schedules.locked(due, skip=True)))[1])


def _fire(due: list[Schedule]) -> tuple[int, int]:
    """Move locked schedules on and start their runs; count both."""
    now = clock.now()
    busy = schedules.going_on(
        one.last_run for one in due if one.overlap != "allow" or one.queued_occurrences
    )
    starts: list[NewRun] = []
    looked: list[Schedule] = []
    for schedule in due:
        if len(starts) >= MOST_STARTS:
            break
        looked.append(schedule)
        starts += _look(schedule, now, schedule.last_run in busy)
    if not looked:
        return 0, 0
    known = fire_schedules.fired([str(one.event_id) for one in starts])
    runs = fire_schedules.store(
        [one for one in starts if one.event_id not in known], now
    )
    failpoint("cron.written", looked[0].function)
    schedules.move(looked)
    failpoint("cron.moved", looked[0].function)
    return len(looked), len(runs)


def _look(schedule: Schedule, now: datetime, busy: bool) -> list[NewRun]:
    if not schedule.in_code and schedule.function in (workers.functions() or ()):
        # The tick of an old release: a worker of the next one fires it in a moment.
        schedule.due_at = now + SOON
        return []
    if not schedule.in_code:
        # It keeps its slot: other processes may run code that has the function.
        schedule.due_at, schedule.missing_at = None, now
        return []
    found = occurrences.look(schedule, now, busy)
    starts = []
    for fire in found.fires:
        id = schedules.event_id(schedule, fire.slot)
        starts.append(fire_schedules.begin(schedule, fire, now, id))
        if not fire.skipped:
            schedule.last_fired_at, schedule.last_run = fire.slot, starts[-1].id
    return starts
