"""Send events: validate, store and route them to functions, in one transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from durable_jobs import clock, ids, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.events import NewEvent, ReceivedEvent
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import (
    ConfigurationError,
    DuplicateKeyError,
    ExpressionError,
    LimitExceeded,
)
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import causation
from durable_jobs.lifecycle import trigger as triggers
from durable_jobs.lifecycle.run_event import build_event_meta
from durable_jobs.lifecycle.run_subjects import subjects_of
from durable_jobs.lifecycle.schemas import validate
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.lifecycle.trigger import TriggeredStart, condition_holds
from durable_jobs.models import Event
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.signals import announce, event_received
from durable_jobs.store import db, events

SEND = "send"
STEP = "step"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A validated event. ``text`` is its data as a JSON string."""

    id: str
    event: NewEvent
    text: str
    ts: datetime
    subjects: tuple[tuple[str, str], ...]

    def received(self) -> ReceivedEvent:
        """Return the event as functions and conditions see it."""
        data = serialization.loads(self.text)
        return ReceivedEvent(
            self.id, self.event.name, data, self.ts, self.event.user, self.event.v
        )


def send(
    new: Sequence[NewEvent],
    source: str = SEND,
    *,
    allow_reserved: bool | Collection[str] = False,
    to: Sequence[Function] = (),
) -> list[str]:
    """Store events and start the functions they trigger; return their ids, in order.

    All events are stored or none. ``allow_reserved``: reserved names are allowed for
    all events, or for these names. ``to``: functions that the events start in addition.
    """
    if len(new) > settings.MAX_EVENTS:
        msg = (
            f"Expected at most {settings.MAX_EVENTS} events at once, got {len(new)} "
            f"(setting MAX_EVENTS)."
        )
        raise LimitExceeded(msg)
    incoming = [_check(event, allow_reserved) for event in new]
    if incoming:
        first = incoming[0].event.name
        causation.check(f"event {first}")
        failpoint("send.begin", first)
        with db.join_atomic():
            _store(incoming, source)
            failpoint("send.stored", first)
            triggers.start_triggered(_starts(incoming, to))
            notifier.notify(settings.QUEUE)
            failpoint("send.started", first)
        failpoint("send.committed", first)
        for one in incoming:
            announce(event_received, event_id=one.id, name=one.event.name)
    return [one.id for one in incoming]


def _check(event: NewEvent, allow_reserved: bool | Collection[str]) -> Incoming:
    if not isinstance(event, NewEvent):
        msg = f"Expected durable.NewEvent, got {event!r:.80}."
        raise ConfigurationError(msg)
    event.checked(
        allow_reserved=allow_reserved
        if isinstance(allow_reserved, bool)
        else event.name in allow_reserved
    )
    data = {} if event.data is None else event.data
    what = f"the data of event {event.name!r}"
    for _, trigger in registry.listeners(event.name):
        if trigger.schema is not None:
            validate(trigger.schema, data, what)
    text = serialization.dumps(
        data, what=what, limit=settings.MAX_EVENT_BYTES, limit_setting="MAX_EVENT_BYTES"
    )
    if event.user is not None:
        serialization.dumps(
            event.user,
            what=f"the user of event {event.name!r}",
            limit=settings.MAX_EVENT_BYTES,
            limit_setting="MAX_EVENT_BYTES",
        )
    return Incoming(
        id=event.id or str(ids.new_id()),
        event=event,
        text=text,
        ts=event.ts or clock.now(),
        subjects=subjects_of(data),
    )


def _store(incoming: Sequence[Incoming], source: str) -> None:
    now = clock.now()
    rows = {
        one.id: Event(
            id=one.id,
            name=one.event.name,
            data=EncodedJSON(one.text),
            user=one.event.user,
            v=one.event.v or "",
            ts=one.ts,
            received_at=now,
            source=source,
            depth=causation.depth(),
        )
        # Of two events with one id the first counts: it overwrites the other.
        for one in reversed(incoming)
    }
    named = [one.id for one in incoming if one.event.id is not None]
    if named:
        names = events.insert_missing(
            [rows.pop(id) for id in dict.fromkeys(named)],
            now - settings.IDEMPOTENCY_PERIOD,
        )
        _check_names(incoming, names)
    if rows:
        events.insert(list(reversed(rows.values())))


def _check_names(incoming: Sequence[Incoming], names: dict[str, str]) -> None:
    """Raise ``DuplicateKeyError`` if an id was used for an event of another name."""
    for one in incoming:
        known = names.get(one.id, one.event.name)
        if known != one.event.name:
            msg = (
                f"The event id {one.id!r} was used for {known!r}; {one.event.name!r} "
                f"needs an id of its own."
            )
            raise DuplicateKeyError(msg)


def _starts(
    incoming: Sequence[Incoming], to: Sequence[Function]
) -> list[TriggeredStart]:
    """Return the starts of the functions that events trigger."""
    return [
        TriggeredStart(made, () if one.event.id is None else (f"event:{one.id}",))
        for one in incoming
        for made in _starts_of(one, to)
    ]


def _starts_of(one: Incoming, to: Sequence[Function]) -> list[NewRun]:
    now = clock.now()
    received = None
    found = {f.id: _start_of(one, f, max(one.ts, now), "") for f in to}
    for function, trigger in registry.listeners(one.event.name):
        if function.id in found and not found[function.id].skip_reason:
            continue
        skip_reason = ""
        if trigger.condition is not None:
            received = received or one.received()
            try:
                if not condition_holds(trigger.condition, received):
                    continue
            except ExpressionError as error:
                # Stored as a skipped run, so that the error is visible.
                skip_reason = f"The condition of its trigger failed: {error.message}"
        found[function.id] = _start_of(one, function, max(one.ts, now), skip_reason)
    return list(found.values())


def _start_of(
    one: Incoming, function: Function, due_at: datetime, skip_reason: str
) -> NewRun:
    kept = build_event_meta(one.event.name, one.ts, one.id, one.event.user, one.event.v)
    return NewRun(
        function=function,
        data=one.text,
        event_meta=causation.with_chain(kept, causation.running_run(), one.event.name),
        depth=causation.depth(),
        due_at=due_at,
        event_id=one.id,
        skip_reason=skip_reason,
        subjects=one.subjects,
    )
