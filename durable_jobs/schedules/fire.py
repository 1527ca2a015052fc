"""What a slot starts: its event and its run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from durable_jobs import ids, serialization
from durable_jobs.definitions.events import CRON
from durable_jobs.definitions.registry import registry
from durable_jobs.lifecycle.start import NewRun, event_meta_of, first_of_each_key, start
from durable_jobs.models import Event, Run, Schedule
from durable_jobs.models.fields import EncodedJSON
from durable_jobs.schedules.occurrences import Occurrence
from durable_jobs.store import db, events

SOURCE = "cron"


def begin(schedule: Schedule, fire: Occurrence, now: datetime, id: str) -> NewRun:
    """Return the run of a slot, not started. ``schedule`` has its ``data_text``."""
    function = registry.get(schedule.function)
    kept = event_meta_of(CRON, fire.slot, id)
    kept["schedule"] = schedule.pk
    if schedule.overlap == "queue":
        kept["overlap"] = schedule.overlap
    owner = (schedule.owner_model, schedule.owner_pk)
    return NewRun(
        function=function,
        data=_data(schedule, fire.slot, now),
        event_meta=kept,
        due_at=now,
        depth=0,
        event_id=id,
        skipped=fire.skipped,
        subjects=(owner,) if schedule.owner_model else (),
    )


def store(starts: Sequence[NewRun], now: datetime) -> list[Run]:
    """Write the events of slots and start their runs, inside the caller's.

    A slot that repeats an idempotency key starts nothing.
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


def fired(event_ids: Sequence[str]) -> set[str]:
    """Return which of these slots were fired before."""
    rows = db.rows(Event).filter(pk__in=list(event_ids))
    return set(rows.values_list("pk", flat=True))


def new_id() -> str:
    """Return the id of an event that is of no slot."""
    return str(ids.new_id())


def _data(schedule: Schedule, slot: datetime, now: datetime) -> str:
    data: dict[str, Any] = {
        "cron": schedule.cron,
        "scheduled_at": slot,
        "fired_at": now,
    }
    if schedule.declared:
        return serialization.dumps(data, what="a cron event")
    data["schedule"] = schedule.pk
    text = serialization.dumps(data, what="a cron event")
    # Kept as it was written: to read it would load the rows that it refers to.
    own = getattr(schedule, "data_text", None) or "{}"
    return f'{text[:-1]},"data":{own}}}'
