"""Debounce and batch: events gathered in windows until one run is started for them.

Senders write the events alone. They are put in windows, in the order in which they
came, and windows are closed, inside an admission.
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
from durable_jobs.store import db, event_windows, item_errors, run_actions

TAKEN = 1000
CLOSED = 100
#: What a run keeps of how many events it has.
COUNT = "gathered"
#: What an event keeps of the instances that it is about.
SUBJECTS = "subjects"


def row(made: NewRun, key: Any) -> BufferedEvent:
    """Return an event to be gathered, from the start that it would be alone."""
    return BufferedEvent(
        function=made.function.id,
        key=key,
        event_id=made.event_id or "",
        event_meta={**made.event_meta, SUBJECTS: [list(one) for one in made.subjects]},
        data=EncodedJSON(made.data),
        ts=datetime.fromisoformat(made.event_meta["ts"]),
        due_at=made.due_at,
    )


def take_in(failed: dict[int, Exception]) -> bool:
    """Put events that have come in windows; tell whether there are more.

    ``failed`` takes up those that could not be put in one.
    """
    known = event_windows.unassigned(clock.now()).filter(function__in=registry.ids())
    rows = list(known.defer("data")[:TAKEN])
    if not rows:
        return False
    names = dict(_names(rows, failed))
    rows = [one for one in rows if one.pk in names]
    open_ones, closing = event_windows.windows(names.values())
    changed: dict[str, EventWindow] = {}
    places: dict[int, str] = {}
    late = False
    for one in rows:
        name = names[one.pk]
        if name in closing:
            late = True
            continue
        window = open_ones.setdefault(name, _opened(one, name))
        if window.size and _closes_before(window, one):
            window.due_at = min(window.due_at, one.due_at)
            changed[name] = window
            late = True  # the window closes first, without this one
            continue
        try:
            _extend(window, one)
        except Exception as error:  # noqa: BLE001  # the caller logs it and puts it off
            failed[one.pk] = error
            continue
        changed[name] = window
        places[one.pk] = name
    event_windows.write_windows(changed.values())
    event_windows.assign({pk: changed[name].pk for pk, name in places.items()})
    return late or len(names) + len(failed) >= TAKEN


def _names(
    rows: Sequence[BufferedEvent], failed: dict[int, Exception]
) -> Iterator[tuple[int, str]]:
    for one in rows:
        try:
            yield one.pk, _name(one)
        except Exception as error:  # noqa: BLE001  # as above
            failed[one.pk] = error


def _closes_before(window: EventWindow, one: BufferedEvent) -> bool:
    """Tell whether a window is over, by its time or by its size, when an event comes.

    A batch has its events parted when it closes.
    """
    function = registry.find(window.function)
    rule = function.flow_control.buffering if function is not None else None
    if not isinstance(rule, Debounce):
        return False
    return window.due_at < one.due_at or _full(rule, window)


def _full(rule: Debounce, window: EventWindow) -> bool:
    return rule.collect and window.size >= settings.MAX_EVENTS


def _name(one: BufferedEvent) -> str:
    return keys.digest(one.function, keys.text_of(one.key))


def _opened(one: BufferedEvent, name: str) -> EventWindow:
    return EventWindow(
        name=name,
        function=one.function,
        key=keys.text_of(one.key)[:300],
        opened_at=one.due_at,
        due_at=one.due_at,
    )


def _extend(window: EventWindow, one: BufferedEvent) -> None:
    """Take one more event in, and say when the window is due."""
    window.size += 1
    function = registry.find(one.function)
    rule = function.flow_control.buffering if function is not None else None
    if isinstance(rule, Debounce):
        due = one.due_at + parse_duration(rule.period)
        if rule.timeout is not None:
            due = min(due, window.opened_at + parse_duration(rule.timeout))
        window.due_at = max(window.due_at, due)
        if _full(rule, window):
            window.due_at = one.due_at
    elif rule is not None:
        full = window.size >= rule.max_size
        length = parse_duration(rule.timeout)
        window.due_at = clock.now() if full else window.opened_at + length
    # A function that gathers no more has its events at once.


def close_due() -> bool:
    """Start runs for the windows that are due; tell whether there were any.

    Each in a transaction of its own, outside of admissions: the keys of functions are
    asked there, which may fail, or last.
    """
    due = event_windows.due(clock.now()).filter(function__in=registry.ids())
    names = list(due.values_list("name", flat=True)[:CLOSED])
    for name in names:
        item_errors.guarded(
            "window",
            name,
            partial(_close_named, name),
            put_off=partial(event_windows.put_off, name),
        )
    return bool(names)


def _close_named(name: str) -> None:
    with db.atomic():
        for window in event_windows.lock_due(name):
            _close(window)


def _close(window: EventWindow) -> None:
    function = registry.get(window.function)
    parts, rest = _parts(function, window)
    started = start([start_for(function, part) for part in parts])
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
    if rule is None:  # it gathers no more
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
    """Leave in a window what a batch had no room for."""
    rule = function.flow_control.batch
    assert rule is not None, "a debounce leaves nothing"
    window.opened_at = rest[0].due_at
    window.due_at = window.opened_at + parse_duration(rule.timeout)
    window.size = len(rest)
    event_windows.write_windows([window])


def gathered_by(run: Run) -> list[ReceivedEvent]:
    """Return the events that were gathered for a run, none when it has only its own.

    Raise ``UnknownTag`` for one that only a later release can read.
    """
    if COUNT not in (run.event_meta or {}):
        return []
    return [_buffered_event(one) for one in event_windows.events_of_run(run.pk)]


def _buffered_event(row: BufferedEvent) -> ReceivedEvent:
    unknown = serialization.unknown_tags(row.data)
    if unknown:
        msg = f"The data of event {row.event_id!r} has the tag {unknown[0]!r:.80}."
        raise serialization.UnknownTag(msg)
    return event_from_meta(row.event_meta, decode_lenient(row.data))


def events_of(run: Run) -> list[BufferedEvent]:
    """Return the events of a run as they came: its own one, where none were gathered.

    That one is not saved. Their data is JSON text.
    """
    if COUNT in (run.event_meta or {}):
        return event_windows.events_of_run(run.pk)
    event = lenient_event_of(run)
    alone = BufferedEvent(
        function=run.function,
        event_id=event.id,
        event_meta={"id": event.id, "name": event.name, **(run.event_meta or {})},
        data=EncodedJSON(run_actions.stored_data(run.pk)),
        ts=event.ts,
        due_at=run.due_at,
    )
    alone.event_meta.setdefault("ts", event.ts.isoformat())
    return [alone]


def start_for(function: Function, events: Sequence[BufferedEvent]) -> NewRun:
    """Return the start of one run for events; the first of them stands for all."""
    first = events[0]
    kept = {
        name: first.event_meta[name] for name in first.event_meta if name != SUBJECTS
    }
    subjects = [
        tuple(one) for event in events for one in event.event_meta.get(SUBJECTS, [])
    ]
    return NewRun(
        function=function,
        data=str(first.data),
        event_meta={**kept, COUNT: len(events)},
        depth=causation.depth_in([event.event_meta for event in events]),
        due_at=clock.now(),
        event_id=first.event_id or None,
        subjects=tuple(dict.fromkeys(subjects)),
    )
