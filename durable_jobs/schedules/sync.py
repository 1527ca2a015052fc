"""Keep one schedule row for each cron that your project declares."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from django.db import IntegrityError

from durable_jobs import clock
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Cron
from durable_jobs.models import Schedule
from durable_jobs.store import db, item_errors, schedules

logger = logging.getLogger("durable_jobs")


def sync() -> int:
    """Create and update the rows of declared crons; return the number of changes.

    Schedules whose function is deployed again become due.
    """
    declared = registry.crons()
    rows = db.rows(Schedule).filter(
        declared=True, function__in={function.id for function, _ in declared}
    )
    known = {(row.function, row.cron, row.tz): row for row in rows.defer("data")}
    changes: list[bool] = []
    for function, cron in declared:
        schedule = known.get((function.id, cron.text, cron.tz))
        work = partial(_sync_one, function, cron, schedule, changes)
        item_errors.guarded("cron", f"{function.id} {cron.text} {cron.tz}", work)
    return sum(changes) + schedules.reactivate_found(
        (f.id for f in registry), clock.now()
    )


def _sync_one(
    function: Function, cron: Cron, schedule: Schedule | None, changes: list[bool]
) -> None:
    if schedule is None:
        changes.append(_create(function, cron))
    else:
        changes.append(_update(schedule, cron))


def _create(function: Function, cron: Cron) -> bool:
    """Create the row of a new cron; return False if another process has created it."""
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
    # Without jitter, which depends on the row's id. The first check adds the jitter.
    schedule.due_at = schedule.next_occurrence
    try:
        with db.atomic():
            db.insert(schedule)
    except IntegrityError:
        logger.debug("Schedule %s of %s exists already.", cron.text, function.id)
        return False
    return True


def _update(schedule: Schedule, cron: Cron) -> bool:
    """Copy the declared options to the row; return whether the row changed."""
    declared: dict[str, Any] = {
        "jitter": cron.spread,
        "catch_up": cron.catch_up,
        "overlap": cron.overlap,
    }
    changes = {k: v for k, v in declared.items() if getattr(schedule, k) != v}
    if schedule.missing_at is not None:
        changes["missing_at"] = None
        if not schedule.is_paused:
            changes["due_at"] = clock.now()
    if not changes:
        return False
    row = db.rows(Schedule).filter(pk=schedule.pk)
    return bool(row.update(**changes))
