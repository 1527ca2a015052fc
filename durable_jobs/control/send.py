"""Send events and signals and start runs for people and programs.

Each function checks the actor's permission and the event names of the API key. A form
has a token from when it was shown. If the form is submitted several times, its event is
sent or its run is started only once.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied

from durable_jobs import ids
from durable_jobs.control import audit, id_namespaces
from durable_jobs.control.actor import Actor
from durable_jobs.definitions.events import NewEvent, check_mapping
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.names import WEBHOOK, check_name
from durable_jobs.definitions.registry import PACKAGE_PREFIX
from durable_jobs.events import send_event, send_signal
from durable_jobs.exceptions import (
    ActionNotAllowed,
    ConfigurationError,
    DuplicateKeyError,
)
from durable_jobs.lifecycle import start as start_runs
from durable_jobs.models import Event, Run
from durable_jobs.queries import visibility
from durable_jobs.store import db, idempotency
from durable_jobs.types import Duration

#: The ``source`` of events that people send.
ADMIN = "admin"
SEND = "durable_jobs.send_event"
SIGNAL = "durable_jobs.send_signal"
START = "durable_jobs.start_run"


@dataclass(frozen=True, slots=True)
class Sent:
    """A sent event, and whether this call sent it."""

    event: Event
    new: bool


@dataclass(frozen=True, slots=True)
class Started:
    """A started run, and whether this call started it."""

    run: Run
    new: bool


def send(
    actor: Actor,
    events: Sequence[NewEvent],
    source: str,
    *,
    allow_reserved: Collection[str] = (),
) -> list[str]:
    """Send events, all or none, and return their ids as given, in order.

    The stored ids are in the actor's namespace. No log entry is written, because the
    events have a source. ``allow_reserved`` are reserved names that are allowed. Raise
    ``PermissionDenied``, and the errors of ``durable.send_many``.
    """
    if not actor.may(SEND):
        raise PermissionDenied
    for event in events:
        if not actor.may_name(event.name):
            msg = f"The key may not send events called {event.name!r:.80}."
            raise PermissionDenied(msg)
    named = [_in_namespace(actor, event) for event in events]
    try:
        with (
            db.atomic(),
            _without_ids("The id of an event was used before for another event."),
        ):
            ids_ = send_event.send(named, source, allow_reserved=allow_reserved)
    except DuplicateKeyError as error:
        raise _as_given(actor, error, [event.id for event in events]) from None
    return [event.id or id for event, id in zip(events, ids_, strict=True)]


def _in_namespace(actor: Actor, event: NewEvent) -> NewEvent:
    """Return an event with its id in the actor's namespace."""
    if event.id is None or not actor.space:
        return event
    check_name(event.id, "an event id")
    return replace(event, id=id_namespaces.stored(actor.space, event.id))


def _as_given(
    actor: Actor, error: DuplicateKeyError, names: Sequence[str | None]
) -> DuplicateKeyError:
    """Return an error with ids and keys as the actor gave them."""
    message = error.message
    for name in dict.fromkeys(names):
        if name and actor.space:
            stored = id_namespaces.stored(actor.space, name)
            message = message.replace(repr(stored), repr(name))
    return DuplicateKeyError(message)


def send_once(
    actor: Actor,
    event: NewEvent,
    *,
    note: str = "",
    allow_reserved: Collection[str] = (),
) -> Sent:
    """Send the event of a form, with an entry in the log.

    The id of the event is the token of the form. If the event was sent before, it is
    not sent again. Raise the errors of ``send``.
    """
    check_token(event.id)
    with db.atomic():
        _serialize("", f"send:{event.id}")
        rows = db.rows(Event).filter(pk=event.id)
        known = rows.first() if actor.may(SEND) else None
        if known is not None:
            return Sent(known, new=False)
        send(actor, [event], ADMIN, allow_reserved=allow_reserved)
        sent = rows.get()
        audit.write(actor, sent, f"Sent{note}.")
    return Sent(sent, new=True)


def resend(actor: Actor, event: Event, token: str) -> Sent:
    """Send a new event with the name, data and user of an earlier event."""
    again = NewEvent(
        event.name, event.data, id=token, user=event.user, v=event.v or None
    )
    with db.atomic():
        allow_reserved = {event.name} if event.name.startswith(WEBHOOK) else ()
        sent = send_once(
            actor,
            again,
            note=f" again, as {event.pk} was",
            allow_reserved=allow_reserved,
        )
        if sent.new:
            audit.write(actor, event, f"Sent again as {sent.event.pk}.")
    return sent


def signal(actor: Actor, name: str, data: Any) -> Run | None:
    """Wake the run that waits for a signal; return it, or None if no run waits."""
    if not actor.may(SIGNAL):
        raise PermissionDenied
    check_signal(actor, name)
    with db.atomic():
        run = send_signal.signal(name, data)
        if run is not None:
            audit.record(actor, run, f"Signal {name} sent.")
    return run


def check_signal(actor: Actor, name: str) -> None:
    """Raise ``PermissionDenied`` for a signal that the actor's key may not send."""
    if not actor.may_name(name):
        msg = f"The key may not send signals called {name!r:.80}."
        raise PermissionDenied(msg)


def start(
    actor: Actor,
    function: Function,
    data: Any,
    *,
    key: str = "",
    token: str | None = None,
    run_after: Duration | datetime | None = None,
    priority: int = 0,
) -> Started:
    """Start a run with an entry in the log, or return the run that has the key.

    ``token`` is the token of a form, and the key if there is no ``key``. Raise
    ``PermissionDenied``, ``ActionNotAllowed`` for a function of this package, and the
    errors of ``function.enqueue``.
    """
    if not actor.may(START):
        raise PermissionDenied
    if function.id.startswith(PACKAGE_PREFIX):
        # The data of such a run names the actor.
        msg = f"{function.id!r} belongs to durable_jobs and cannot be started directly."
        raise ActionNotAllowed(msg)
    actor.check_may_set_data(function)
    given = key
    if key and actor.space:
        key = id_namespaces.stored(actor.space, check_name(key, "a key"))
    if token is not None:
        check_token(token)
        key = key or f"form:{token}"
    chosen = function.using(key=key or None, run_after=run_after, priority=priority)
    try:
        with db.atomic():
            if key:
                _serialize(function.id, f"start:{key}")
            check_mapping(data, f"the data of {function.id!r}")
            with _without_ids("The key was used before with other data."):
                run, new = start_runs.enqueue_once(chosen, data)
            if new:
                audit.record(actor, run, "Run started.")
    except DuplicateKeyError as error:
        raise _as_given(actor, error, [given]) from None
    return Started(run, new)


@contextmanager
def _without_ids(message: str) -> Iterator[None]:
    """Replace the message of a conflict, which may name hidden runs and events."""
    try:
        yield
    except DuplicateKeyError:
        if not visibility.is_narrowed():
            raise
        raise DuplicateKeyError(message) from None


def _serialize(function: str, what: str) -> None:
    """Wait for a concurrent call with the same key to commit."""
    idempotency.claim_keys([idempotency.KeyClaim(function, what, ids.new_id())])


def check_token(token: str | None) -> None:
    """Raise if the token of a form is invalid."""
    try:
        fits = str(uuid.UUID(str(token))) == token
    except ValueError:
        fits = False
    if not fits:
        msg = "Expected the token of the form. Load the page again."
        raise ConfigurationError(msg)
