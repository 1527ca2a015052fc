"""Cron triggers: one row each, whose ``next_at`` is moved by whoever fires it."""

from __future__ import annotations

import logging
from datetime import datetime

from django.db import IntegrityError

from durable_jobs import clock, ids, serialization
from durable_jobs.definitions.events import CRON
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Cron
from durable_jobs.events.starting import Start, origin, start
from durable_jobs.failpoints import hit
from durable_jobs.models import Event, Schedule
from durable_jobs.models.fields import Encoded
from durable_jobs.store import db, events

logger = logging.getLogger("durable_jobs")

#: How many missed times one sweep fires; the next sweep goes on.
MOST_AT_ONCE = 100


def sweep() -> int:
    """Fire the crons whose time has come; return how many runs that started."""
    fired = 0
    known = _known()
    for function, cron in registry.crons():
        schedule = known.get((function.id, cron.text, cron.tz))
        if schedule is None:
            _add(function, cron)
        elif schedule.next_at <= clock.now():
            fired += _fire(schedule, function, cron)
    return fired


def _known() -> dict[tuple[str, str, str], Schedule]:
    rows = Schedule.objects.using(db.alias()).all()
    return {(row.function, row.cron, row.tz): row for row in rows}


def _add(function: Function, cron: Cron) -> None:
    """Note when a new cron fires first; another beat may have done it."""
    try:
        with db.atomic():
            Schedule.objects.using(db.alias()).create(
                function=function.id,
                cron=cron.text,
                tz=cron.tz,
                next_at=cron.expression.next_after(clock.now()),
            )
    except IntegrityError:
        logger.debug("Schedule %s of %s was there.", cron.text, function.id)


def _fire(schedule: Schedule, function: Function, cron: Cron) -> int:
    """Move the schedule on and start its runs, in one transaction."""
    slots, next_at = _slots(schedule.next_at, cron)
    with db.atomic():
        row = Schedule.objects.using(db.alias()).filter(
            pk=schedule.pk, next_at=schedule.next_at
        )
        now = clock.now()
        if not row.update(next_at=next_at, fired_at=slots[-1] if slots else None):
            return 0
        hit("cron.moved", function.id)
        _start(function, cron, slots, now)
        hit("cron.written", function.id)
    hit("cron.committed", function.id)
    return len(slots)


def _slots(first: datetime, cron: Cron) -> tuple[list[datetime], datetime]:
    """Return the times to fire now, by ``catch_up``, and the next one after them."""
    now = clock.now()
    passed = [first]
    upcoming = cron.expression.next_after(first)
    while upcoming <= now and (cron.catch_up != "all" or len(passed) < MOST_AT_ONCE):
        passed.append(upcoming)
        upcoming = cron.expression.next_after(upcoming)
        if cron.catch_up != "all":
            passed = passed[-1:]
    if cron.catch_up == "skip":
        # The latest time counts as on time while no later one has come, but not when it
        # passed during an outage.
        passed = passed if _on_time(passed[-1], upcoming, now) else []
    return passed, upcoming


def _on_time(slot: datetime, upcoming: datetime, now: datetime) -> bool:
    from durable_jobs.conf import settings

    grace = max(10 * settings.TICK, min(settings.LEASE, (upcoming - slot) / 2))
    return now - slot <= grace


def _start(
    function: Function, cron: Cron, slots: list[datetime], now: datetime
) -> None:
    rows, starts = [], []
    for slot in slots:
        data = {"cron": cron.text, "scheduled_at": slot, "fired_at": now}
        text = serialization.dumps(data, what="a cron event")
        event_id = str(ids.new_id())
        rows.append(
            Event(
                id=event_id,
                name=CRON,
                data=Encoded(text),
                ts=slot,
                received_at=now,
                source="cron",
                pending=False,
            )
        )
        starts.append(
            Start(
                function=function,
                data=text,
                origin=origin(CRON, slot, event_id),
                due_at=now,
                event_id=event_id,
            )
        )
    if rows:
        events.insert(rows)
        start(starts)
