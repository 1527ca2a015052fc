"""Start the runs of due occurrences, for declared and for user-created schedules.

One transaction locks due schedules, advances them and starts their runs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from durable_jobs import clock, ids, serialization
from durable_jobs.definitions.events import CRON
from durable_jobs.definitions.registry import registry
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle.run_event import build_event_meta
from durable_jobs.lifecycle.start import NewRun, first_of_each_key, start
from durable_jobs.models import Event, Run, Schedule
from durable_jobs.schedules import occurrences
from durable_jobs.schedules.occurrences import Occurrence
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.store import db, events, item_errors, schedules, workers

logger = logging.getLogger("durable_jobs")

SOURCE = "cron"
BATCH = 500
#: A transaction locks no further schedule once it starts this many runs.
MAX_STARTS = 2 * BATCH
#: Delay of a schedule whose function only other live workers have.
RETRY_DELAY = timedelta(seconds=2)


def sweep() -> int:
    """Fire all due schedules; return the number of runs started."""
    fired = 0
    while True:
        try:
            with db.atomic():
                checked, started = _fire(schedules.due(BATCH))
            if checked:
                failpoint("cron.committed")
        except Exception as error:
            if db.is_outage(error):
                raise
            logger.exception("A batch of schedules failed. Retrying them one by one.")
            checked, started = _one_by_one()
        fired += started
        if not checked:
            return fired


def _one_by_one() -> tuple[int, int]:
    """Fire each schedule of a batch in one transaction; postpone those that fail."""
    rows = db.rows(Schedule).filter(due_at__lte=clock.now())
    chosen = list(rows.order_by("due_at").values_list("pk", flat=True)[:BATCH])
    started: list[int] = []
    for pk in chosen:
        item_errors.guarded(
            "schedule",
            pk,
            partial(_fire_one, pk, started),
            postpone=partial(schedules.postpone, pk),
        )
    return len(chosen), sum(started)


def _fire_one(pk: int, started: list[int]) -> None:
    with db.atomic():
        due = schedules.rows().filter(pk=pk, due_at__lte=clock.now())
        started.append(_fire(list(schedules.locked(due, skip=True)))[1])


def _fire(due: list[Schedule]) -> tuple[int, int]:
    """Advance locked schedules and start their runs; return the number of both."""
    now = clock.now()
    busy = schedules.live_runs(
        one.last_run for one in due if one.overlap != "allow" or one.queued_occurrences
    )
    starts: list[NewRun] = []
    checked: list[Schedule] = []
    for schedule in due:
        if len(starts) >= MAX_STARTS:
            break
        checked.append(schedule)
        starts += _advance(schedule, now, schedule.last_run in busy)
    if not checked:
        return 0, 0
    known = _fired_before([str(one.event_id) for one in starts])
    runs = start_runs([one for one in starts if one.event_id not in known], now)
    failpoint("cron.written", checked[0].function)
    schedules.move(checked)
    failpoint("cron.moved", checked[0].function)
    return len(checked), len(runs)


def _advance(schedule: Schedule, now: datetime, busy: bool) -> list[NewRun]:
    if not schedule.in_code and schedule.function in (workers.functions() or ()):
        # This tick runs an older version. A worker of the newer one fires it soon.
        schedule.due_at = now + RETRY_DELAY
        return []
    if not schedule.in_code:
        # The occurrence is kept: another process may have the function.
        schedule.due_at, schedule.missing_at = None, now
        return []
    update = occurrences.advance(schedule, now, busy)
    starts = []
    for occurrence in update.occurrences:
        id = schedules.event_id(schedule, occurrence.time)
        starts.append(new_run(schedule, occurrence, now, id))
        if not occurrence.skip_reason:
            schedule.last_fired_at = occurrence.time
            schedule.last_run = starts[-1].id
    return starts


def new_run(
    schedule: Schedule, occurrence: Occurrence, now: datetime, event_id: str
) -> NewRun:
    """Return the run of an occurrence, not started.

    ``schedule`` is annotated with ``data_text``.
    """
    function = registry.get(schedule.function)
    meta = build_event_meta(CRON, occurrence.time, event_id)
    meta["schedule"] = schedule.pk
    if schedule.overlap == "queue":
        meta["overlap"] = schedule.overlap
    owner = (schedule.owner_model, schedule.owner_pk)
    return NewRun(
        function=function,
        data=_data(schedule, occurrence.time, now),
        event_meta=meta,
        due_at=now,
        depth=0,
        event_id=event_id,
        skip_reason=occurrence.skip_reason,
        subjects=(owner,) if schedule.owner_model else (),
    )


def start_runs(starts: Sequence[NewRun], now: datetime) -> list[Run]:
    """Write the events of occurrences and start their runs, in the open transaction.

    An occurrence whose idempotency key is taken starts no run.
    """
    rows = [
        Event(
            id=str(one.event_id),
            name=CRON,
            data=EncodedJSON(one.data),
            ts=datetime.fromisoformat(one.event_meta["ts"]),
            received_at=now,
            source=SOURCE,
            pending=False,
        )
        for one in starts
    ]
    if not rows:
        return []
    events.insert(rows)
    return start(first_of_each_key(starts))


def _fired_before(event_ids: Sequence[str]) -> set[str]:
    """Return the ids among ``event_ids`` whose occurrence has fired before."""
    rows = db.rows(Event).filter(pk__in=list(event_ids))
    return set(rows.values_list("pk", flat=True))


def new_event_id() -> str:
    """Return the id of an event that belongs to no occurrence (``run_now()``)."""
    return str(ids.new_id())


def _data(schedule: Schedule, time: datetime, now: datetime) -> str:
    data: dict[str, Any] = {
        "cron": schedule.cron,
        "scheduled_at": time,
        "fired_at": now,
    }
    if schedule.declared:
        return serialization.dumps(data, what="a cron event")
    data["schedule"] = schedule.pk
    text = serialization.dumps(data, what="a cron event")
    # Copied as stored: decoding it would load the rows that it refers to.
    stored_data = getattr(schedule, "data_text", None) or "{}"
    return f'{text[:-1]},"data":{stored_data}}}'
