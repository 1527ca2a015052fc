"""Debounce and batch: buffer events in windows, then start one run per window.

Senders only write the events. An admission puts them in windows, in order of arrival,
and closes the windows that are due.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from durable_jobs import clock, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.events import ReceivedEvent
from durable_jobs.definitions.flow_control import Debounce
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.durations import parse_duration
from durable_jobs.flow_control import keys
from durable_jobs.lifecycle import causation
from durable_jobs.lifecycle.run_event import event_from_meta, lenient_event_of
from durable_jobs.lifecycle.start import NewRun, start
from durable_jobs.models import BufferedEvent, EventWindow, Run
from durable_jobs.serialization.stored import EncodedJSON, decode_lenient
from durable_jobs.store import db, event_windows, item_errors, run_changes

BATCH = 1000
WINDOWS_AT_ONCE = 100
#: Key in ``Run.event_meta``: the number of events of the batch.
COUNT = "buffered"
#: Key in an event's meta: the model instances that it is about.
SUBJECTS = "subjects"


def build_row(made: NewRun, key: Any) -> BufferedEvent:
    """Return the buffered event of a start."""
    return BufferedEvent(
        function=made.function.id,
        key=key,
        event_id=made.event_id or "",
        event_meta={
            **made.event_meta,
            SUBJECTS: [list(subject) for subject in made.all_subjects()],
        },
        data=EncodedJSON(made.data),
        ts=datetime.fromisoformat(made.event_meta["ts"]),
        due_at=made.due_at,
    )


def assign_windows(failed: dict[int, Exception]) -> bool:
    """Put new events in windows; return whether there are more.

    ``failed`` receives the errors of events that could not be put in a window.
    """
    known = event_windows.unassigned(clock.now()).filter(function__in=registry.ids())
    rows = list(known.defer("data")[:BATCH])
    if not rows:
        return False
    names = dict(_names(rows, failed))
    rows = [event_row for event_row in rows if event_row.pk in names]
    open_windows, closing = event_windows.windows(names.values())
    changed: dict[str, EventWindow] = {}
    assigned: dict[int, str] = {}
    more = False
    for event_row in rows:
        name = names[event_row.pk]
        if name in closing:
            more = True
            continue
        window = open_windows.setdefault(name, _new_window(event_row, name))
        if window.size and _closes_before(window, event_row):
            window.due_at = min(window.due_at, event_row.due_at)
            changed[name] = window
            more = True  # the window closes first, without this event
            continue
        try:
            _extend(window, event_row)
        except Exception as error:  # noqa: BLE001  # the caller logs and postpones it
            failed[event_row.pk] = error
            continue
        changed[name] = window
        assigned[event_row.pk] = name
    event_windows.write_windows(changed.values())
    event_windows.assign({pk: changed[name].pk for pk, name in assigned.items()})
    return more or len(names) + len(failed) >= BATCH


def _names(
    rows: Sequence[BufferedEvent], failed: dict[int, Exception]
) -> Iterator[tuple[int, str]]:
    for event_row in rows:
        try:
            yield event_row.pk, _name(event_row)
        except Exception as error:  # noqa: BLE001  # as above
            failed[event_row.pk] = error


def _closes_before(window: EventWindow, event_row: BufferedEvent) -> bool:
    """Return whether a debounce window closes, by time or size, before an event.

    A batch is split when it closes.
    """
    function = registry.find(window.function)
    rule = function.flow_control.buffering if function is not None else None
    if not isinstance(rule, Debounce):
        return False
    return window.due_at < event_row.due_at or _full(rule, window)


def _full(rule: Debounce, window: EventWindow) -> bool:
    return rule.collect and window.size >= settings.MAX_EVENTS


def _name(event_row: BufferedEvent) -> str:
    return keys.digest(event_row.function, keys.key_text(event_row.key))


def _new_window(event_row: BufferedEvent, name: str) -> EventWindow:
    return EventWindow(
        name=name,
        function=event_row.function,
        key=keys.key_text(event_row.key)[:300],
        opened_at=event_row.due_at,
        due_at=event_row.due_at,
    )


def _extend(window: EventWindow, event_row: BufferedEvent) -> None:
    """Add an event to a window, and compute when the window is due."""
    window.size += 1
    function = registry.find(event_row.function)
    rule = function.flow_control.buffering if function is not None else None
    if isinstance(rule, Debounce):
        due = event_row.due_at + parse_duration(rule.period)
        if rule.timeout is not None:
            due = min(due, window.opened_at + parse_duration(rule.timeout))
        window.due_at = max(window.due_at, due)
        if _full(rule, window):
            window.due_at = event_row.due_at
    elif rule is not None:
        full = window.size >= rule.max_size
        length = parse_duration(rule.timeout)
        window.due_at = clock.now() if full else window.opened_at + length
    # Without a rule any more, the events start runs at once.


def close_due() -> bool:
    """Start runs for the windows that are due; return whether there were any.

    Each window has its own transaction, outside of admissions: key functions of your
    project may fail or be slow.
    """
    due = event_windows.due(clock.now()).filter(function__in=registry.ids())
    names = list(due.values_list("name", flat=True)[:WINDOWS_AT_ONCE])
    for name in names:
        item_errors.guarded(
            "window",
            name,
            partial(_close_named, name),
            postpone=partial(event_windows.postpone, name),
        )
    return bool(names)


def _close_named(name: str) -> None:
    with db.atomic():
        for window in event_windows.lock_due(name):
            _close(window)


def _close(window: EventWindow) -> None:
    function = registry.get(window.function)
    parts, rest = _parts(function, window)
    started = start([new_run(function, part) for part in parts])
    for run, part in zip(started, parts, strict=True):
        event_windows.assign_to_run(part, run.pk)
    if rest:
        _reopen(window, rest, function)
    else:
        event_windows.close(window)


def _parts(
    function: Function, window: EventWindow
) -> tuple[list[Sequence[BufferedEvent]], Sequence[BufferedEvent]]:
    """Return the events of each run, and those that may wait for more."""
    rule = function.flow_control.buffering
    if isinstance(rule, Debounce) and not rule.collect:
        latest = event_windows.keep_latest(window)
        return [latest] if latest else [], []
    events = event_windows.events_in(window)
    if rule is None:  # the function has no rule any more
        return _chunks(events, 1), []
    if isinstance(rule, Debounce):
        return _chunks(events, settings.MAX_EVENTS), []
    size, timeout = rule.max_size, parse_duration(rule.timeout)
    parts = _chunks(events, size)
    last = parts[-1] if parts else []
    if last and len(last) < size and last[0].due_at + timeout > clock.now():
        return parts[:-1], last
    return parts, []


def _chunks(
    events: Sequence[BufferedEvent], size: int
) -> list[Sequence[BufferedEvent]]:
    return [events[first : first + size] for first in range(0, len(events), size)]


def _reopen(
    window: EventWindow, rest: Sequence[BufferedEvent], function: Function
) -> None:
    """Keep events in a window that did not fill a batch."""
    rule = function.flow_control.batch
    assert rule is not None, "a debounce has no rest"
    window.opened_at = rest[0].due_at
    window.due_at = window.opened_at + parse_duration(rule.timeout)
    window.size = len(rest)
    event_windows.write_windows([window])


def batch_of(run: Run) -> list[ReceivedEvent]:
    """Return the events that were buffered for a run; empty if none were."""
    if COUNT not in (run.event_meta or {}):
        return []
    return [
        _buffered_event(event_row) for event_row in event_windows.events_of_run(run.pk)
    ]


def _buffered_event(row: BufferedEvent) -> ReceivedEvent:
    unknown = serialization.unknown_tags(row.data)
    if unknown:
        msg = f"The data of event {row.event_id!r} has the tag {unknown[0]!r:.80}."
        raise serialization.UnknownTag(msg)
    return event_from_meta(row.event_meta, decode_lenient(row.data))


def events_of(run: Run) -> list[BufferedEvent]:
    """Return the events of a run in order of arrival; at least its own event.

    The own event is not saved. The data of the events is a JSON string.
    """
    if COUNT in (run.event_meta or {}):
        return event_windows.events_of_run(run.pk)
    event = lenient_event_of(run)
    trigger_event = BufferedEvent(
        function=run.function,
        event_id=event.id,
        event_meta={"id": event.id, "name": event.name, **(run.event_meta or {})},
        data=EncodedJSON(run_changes.stored_data(run.pk)),
        ts=event.ts,
        due_at=run.due_at,
    )
    trigger_event.event_meta.setdefault("ts", event.ts.isoformat())
    return [trigger_event]


def new_run(function: Function, events: Sequence[BufferedEvent]) -> NewRun:
    """Return the start of one run for events; the first event represents all."""
    first = events[0]
    event_meta = {
        name: first.event_meta[name] for name in first.event_meta if name != SUBJECTS
    }
    subjects = [
        tuple(subject)
        for event in events
        for subject in event.event_meta.get(SUBJECTS, [])
    ]
    return NewRun(
        function=function,
        data=str(first.data),
        event_meta={**event_meta, COUNT: len(events)},
        depth=causation.depth_in([event.event_meta for event in events]),
        due_at=clock.now(),
        event_id=first.event_id or None,
        subjects=tuple(dict.fromkeys(subjects)),
    )
