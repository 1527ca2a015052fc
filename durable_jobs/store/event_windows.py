"""Events that are gathered for one run, and the windows that they are gathered in."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from durable_jobs import clock
from durable_jobs.models import BufferedEvent, EventWindow
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.store import bulk_insert, db

#: Events that one statement assigns. It compares each with half of the others.
ASSIGNED = 250


def insert(rows: Sequence[BufferedEvent]) -> None:
    """Write events that have come, in the sender's transaction."""
    bulk_insert.insert(BufferedEvent, rows)


def unassigned(now: datetime) -> QuerySet[BufferedEvent]:
    """Return the events whose time has come and that are in no window yet."""
    rows = db.rows(BufferedEvent).filter(
        window__isnull=True, run__isnull=True, due_at__lte=now
    )
    return rows.order_by("due_at", "id")


def windows(names: Iterable[str]) -> tuple[dict[str, EventWindow], set[str]]:
    """Lock open windows and return them by name; and those being closed just now."""
    rows = db.rows(EventWindow).filter(name__in=list(names))
    found = {row.name: row for row in _unlocked(rows.order_by("pk"))}
    every = set(rows.order_by().values_list("name", flat=True))
    return found, every - found.keys()


def lock_due(name: str) -> list[EventWindow]:
    """Lock a window that is due, unless somebody is about it just now."""
    return list(_unlocked(due(clock.now()).filter(name=name)))


def _unlocked(rows: QuerySet[EventWindow]) -> QuerySet[EventWindow]:
    return rows.select_for_update(skip_locked=True) if db.lockable() else rows


def write_windows(rows: Iterable[EventWindow]) -> None:
    """Write windows, new and changed, which have their ids then."""
    db.rows(EventWindow).bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["opened_at", "due_at", "size"],
    )


def assign(places: Mapping[int, int]) -> None:
    """Put events in windows, by their ids."""
    rows = db.rows(BufferedEvent)
    chosen = rows.filter(pk__in=list(places))
    windows = set(places.values())
    if len(windows) == 1:
        chosen.update(window=windows.pop())
    elif windows:
        events = [
            BufferedEvent(pk=pk, window_id=window) for pk, window in places.items()
        ]
        rows.bulk_update(events, ["window"], batch_size=ASSIGNED)


def due(now: datetime) -> QuerySet[EventWindow]:
    """Return the windows that are due, the earliest first."""
    rows = db.rows(EventWindow).filter(due_at__lte=now)
    return rows.order_by("due_at", "id")


def next_due() -> datetime | None:
    """Return the earliest time at which a window or an event will be due."""
    now = clock.now()
    windows = db.rows(EventWindow).filter(due_at__gt=now)
    fresh = db.rows(BufferedEvent).filter(
        window__isnull=True, run__isnull=True, due_at__gt=now
    )
    times = [
        windows.order_by("due_at").values_list("due_at", flat=True).first(),
        fresh.order_by("due_at").values_list("due_at", flat=True).first(),
    ]
    return min((time for time in times if time is not None), default=None)


def events_in(window: EventWindow) -> list[BufferedEvent]:
    """Return the events of a window as they came. Their data is JSON text."""
    return _as_text(db.rows(BufferedEvent).filter(window=window))


def keep_latest(window: EventWindow) -> list[BufferedEvent]:
    """Return the event of a window with the latest ``ts``, and delete the others.

    An empty list where the window has none. Its data is JSON text.
    """
    rows = db.rows(BufferedEvent).filter(window=window)
    last = rows.order_by("-ts", "-id").values_list("pk", flat=True).first()
    if last is None:
        return []
    rows.exclude(pk=last)._raw_delete(db.alias())
    return events_in(window)


def events_of_run(run_id: uuid.UUID) -> list[BufferedEvent]:
    """Return the events of a run as they came. Their data is JSON text."""
    return _as_text(db.rows(BufferedEvent).filter(run_id=run_id))


def _as_text(rows: QuerySet[BufferedEvent]) -> list[BufferedEvent]:
    # What the data refers to may be gone; whoever needs the values decodes it.
    found: list[BufferedEvent] = []
    texts = rows.order_by("id").defer("data").annotate(text=Cast("data", TextField()))
    for row in texts:
        row.data = EncodedJSON(row.text or "null")
        found.append(row)
    return found


def assign_to_run(events: Sequence[BufferedEvent], run_id: uuid.UUID) -> None:
    """Give events of a window to a run."""
    rows = db.rows(BufferedEvent).filter(pk__in=[one.pk for one in events])
    rows.update(window=None, run_id=run_id)


def copy(events: Sequence[BufferedEvent], run_id: uuid.UUID) -> None:
    """Give copies of a run's events to another run."""
    db.rows(BufferedEvent).bulk_create(
        BufferedEvent(
            function=one.function,
            key=one.key,
            run_id=run_id,
            event_id=one.event_id,
            event_meta=one.event_meta,
            data=one.data,
            ts=one.ts,
            due_at=one.due_at,
        )
        for one in events
    )


def put_off(name: str, due_at: datetime) -> None:
    """Let a window be due later."""
    db.rows(EventWindow).filter(name=name).update(due_at=due_at)


def put_off_event(pk: int, due_at: datetime) -> None:
    """Let an event that is in no window be put in one later."""
    rows = db.rows(BufferedEvent).filter(pk=pk, window__isnull=True)
    rows.update(due_at=due_at)


def close(window: EventWindow) -> None:
    """Delete a window whose events have gone to runs."""
    db.rows(EventWindow).filter(pk=window.pk)._raw_delete(db.alias())
