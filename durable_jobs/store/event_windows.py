"""Event windows, and the events that they buffer for one run."""

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

#: Events per statement. The cost of a statement grows with the square of this number.
ASSIGNED = 250


def insert(rows: Sequence[BufferedEvent]) -> None:
    """Insert events in the sender's transaction."""
    bulk_insert.insert(BufferedEvent, rows)


def unassigned(now: datetime) -> QuerySet[BufferedEvent]:
    """Return the due events that are not assigned to a window."""
    rows = db.rows(BufferedEvent).filter(
        window__isnull=True, run__isnull=True, due_at__lte=now
    )
    return rows.order_by("due_at", "id")


def windows(names: Iterable[str]) -> tuple[dict[str, EventWindow], set[str]]:
    """Lock open windows; return them by name, and the names that are locked already."""
    rows = db.rows(EventWindow).filter(name__in=list(names))
    found = {row.name: row for row in _unlocked(rows.order_by("pk"))}
    every = set(rows.order_by().values_list("name", flat=True))
    return found, every - found.keys()


def lock_due(name: str) -> list[EventWindow]:
    """Lock a due window by name, unless it is locked; return it in a list."""
    return list(_unlocked(due(clock.now()).filter(name=name)))


def _unlocked(rows: QuerySet[EventWindow]) -> QuerySet[EventWindow]:
    return rows.select_for_update(skip_locked=True) if db.lockable() else rows


def write_windows(rows: Iterable[EventWindow]) -> None:
    """Insert or update windows, and set their ids."""
    db.rows(EventWindow).bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["opened_at", "due_at", "size"],
    )


def assign(window_of: Mapping[int, int]) -> None:
    """Assign events to windows, given as event id to window id."""
    rows = db.rows(BufferedEvent)
    chosen = rows.filter(pk__in=list(window_of))
    windows = set(window_of.values())
    if len(windows) == 1:
        chosen.update(window=windows.pop())
    elif windows:
        events = [
            BufferedEvent(pk=pk, window_id=window) for pk, window in window_of.items()
        ]
        rows.bulk_update(events, ["window"], batch_size=ASSIGNED)


def due(now: datetime) -> QuerySet[EventWindow]:
    """Return the due windows, earliest first."""
    rows = db.rows(EventWindow).filter(due_at__lte=now)
    return rows.order_by("due_at", "id")


def next_due() -> datetime | None:
    """Return the earliest future time at which a window or an event is due."""
    now = clock.now()
    windows = db.rows(EventWindow).filter(due_at__gt=now)
    events = db.rows(BufferedEvent).filter(
        window__isnull=True, run__isnull=True, due_at__gt=now
    )
    times = [
        windows.order_by("due_at").values_list("due_at", flat=True).first(),
        events.order_by("due_at").values_list("due_at", flat=True).first(),
    ]
    return min((time for time in times if time is not None), default=None)


def events_in(window: EventWindow) -> list[BufferedEvent]:
    """Return the events of a window in order of arrival, with data as JSON text."""
    return _as_text(db.rows(BufferedEvent).filter(window=window))


def keep_latest(window: EventWindow) -> list[BufferedEvent]:
    """Delete all events of a window except the one with the latest ``ts``.

    Return that event in a list, with data as JSON text, or an empty list.
    """
    rows = db.rows(BufferedEvent).filter(window=window)
    last = rows.order_by("-ts", "-id").values_list("pk", flat=True).first()
    if last is None:
        return []
    rows.exclude(pk=last)._raw_delete(db.alias())
    return events_in(window)


def events_of_run(run_id: uuid.UUID) -> list[BufferedEvent]:
    """Return the events of a run in order of arrival, with data as JSON text."""
    return _as_text(db.rows(BufferedEvent).filter(run_id=run_id))


def _as_text(rows: QuerySet[BufferedEvent]) -> list[BufferedEvent]:
    # The data may refer to deleted rows. The caller decodes it if needed.
    found: list[BufferedEvent] = []
    texts = rows.order_by("id").defer("data").annotate(text=Cast("data", TextField()))
    for row in texts:
        row.data = EncodedJSON(row.text or "null")
        found.append(row)
    return found


def assign_to_run(events: Sequence[BufferedEvent], run_id: uuid.UUID) -> None:
    """Move events from their window to a run."""
    rows = db.rows(BufferedEvent).filter(pk__in=[one.pk for one in events])
    rows.update(window=None, run_id=run_id)


def copy(events: Sequence[BufferedEvent], run_id: uuid.UUID) -> None:
    """Copy events to a run."""
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


def postpone(name: str, due_at: datetime) -> None:
    """Delay a window."""
    db.rows(EventWindow).filter(name=name).update(due_at=due_at)


def postpone_event(pk: int, due_at: datetime) -> None:
    """Delay the assignment of an event to a window."""
    rows = db.rows(BufferedEvent).filter(pk=pk, window__isnull=True)
    rows.update(due_at=due_at)


def close(window: EventWindow) -> None:
    """Delete a window whose events were moved to runs."""
    db.rows(EventWindow).filter(pk=window.pk)._raw_delete(db.alias())
