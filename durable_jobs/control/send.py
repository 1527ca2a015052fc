"""What people and programs begin: events, signals, and runs.

Each checks the actor's permission, and events the names that a key may send. A form
carries an id that was made when it was shown: what is sent with it is sent once,
however often the form comes.
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
from durable_jobs.definitions.registry import OWN
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
    """What came of sending: the event, and whether this call sent it."""

    event: Event
    new: bool


@dataclass(frozen=True, slots=True)
class Started:
    """What came of starting: the run, and whether this call started it."""

    run: Run
    new: bool


def send(
    actor: Actor,
    events: Sequence[NewEvent],
    source: str,
    *,
    own: Collection[str] = (),
) -> list[str]:
    """Send events, all or none, and return their ids as they were given, in order.

    Their ids are of the actor's name space. They are their own record, by their source.
    ``own`` are reserved names that they may have. Raises ``PermissionDenied``, and what
    ``durable.send_many`` raises.
    """
    if not actor.may(SEND):
        raise PermissionDenied
    for event in events:
        if not actor.may_name(event.name):
            msg = f"The key may not send events called {event.name!r:.80}."
            raise PermissionDenied(msg)
    named = [_named(actor, event) for event in events]
    try:
        with db.atomic(), _untold("The id of an event was used before, for another."):
            ids_ = send_event.send(named, source, own=own)
    except DuplicateKeyError as error:
        raise _as_given(actor, error, [event.id for event in events]) from None
    return [event.id or id for event, id in zip(events, ids_, strict=True)]


def _named(actor: Actor, event: NewEvent) -> NewEvent:
    """Return an event with its id in the actor's name space."""
    if event.id is None or not actor.space:
        return event
    check_name(event.id, "an event id")
    return replace(event, id=id_namespaces.stored(actor.space, event.id))


def _as_given(
    actor: Actor, error: DuplicateKeyError, names: Sequence[str | None]
) -> DuplicateKeyError:
    """Return an error that calls ids and keys as the actor gave them."""
    message = error.message
    for name in dict.fromkeys(names):
        if name and actor.space:
            stored = id_namespaces.stored(actor.space, name)
            message = message.replace(repr(stored), repr(name))
    return DuplicateKeyError(message)


def send_once(
    actor: Actor, event: NewEvent, *, note: str = "", own: Collection[str] = ()
) -> Sent:
    """Send the event of a form, whose id it has, and write down who did it.

    One that was sent already is not sent again. Raises what ``send`` raises.
    """
    check_token(event.id)
    with db.atomic():
        _one_at_a_time("", f"send:{event.id}")
        rows = db.rows(Event).filter(pk=event.id)
        known = rows.first() if actor.may(SEND) else None
        if known is not None:
            return Sent(known, new=False)
        send(actor, [event], ADMIN, own=own)
        sent = rows.get()
        audit.write(actor, sent, f"Sent{note}.")
    return Sent(sent, new=True)


def resend(actor: Actor, event: Event, token: str) -> Sent:
    """Send a new event with the name, the data and the user of one that came before."""
    again = NewEvent(
        event.name, event.data, id=token, user=event.user, v=event.v or None
    )
    with db.atomic():
        own = {event.name} if event.name.startswith(WEBHOOK) else ()
        sent = send_once(actor, again, note=f" again, as {event.pk} was", own=own)
        if sent.new:
            audit.write(actor, event, f"Sent again as {sent.event.pk}.")
    return sent


def signal(actor: Actor, name: str, data: Any) -> Run | None:
    """Wake the run that waits for a signal and return it; None when nobody waits."""
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
    """Start a run, and write down who did it; or find the one that has the key.

    ``token`` is the id of the form, if it comes from one: it stands for a ``key`` where
    none is given. Raises ``PermissionDenied``, ``Refused`` for a function of the app's
    own, and what ``function.enqueue`` raises.
    """
    if not actor.may(START):
        raise PermissionDenied
    if function.id.startswith(OWN):
        # What they are given says who acts.
        msg = f"{function.id!r} is the app's own: it is begun by what it is for."
        raise ActionNotAllowed(msg)
    actor.check_feeding(function)
    asked = key
    if key and actor.space:
        key = id_namespaces.stored(actor.space, check_name(key, "a key"))
    if token is not None:
        check_token(token)
        key = key or f"form:{token}"
    chosen = function.using(key=key or None, run_after=run_after, priority=priority)
    try:
        with db.atomic():
            if key:
                _one_at_a_time(function.id, f"start:{key}")
            check_mapping(data, f"the data of {function.id!r}")
            with _untold("The key was used before, with other data."):
                run, new = start_runs.enqueue_once(chosen, data)
            if new:
                audit.record(actor, run, "Run started.")
    except DuplicateKeyError as error:
        raise _as_given(actor, error, [asked]) from None
    return Started(run, new)


@contextmanager
def _untold(message: str) -> Iterator[None]:
    """Let a conflict name no run or event that the actor may not see."""
    try:
        yield
    except DuplicateKeyError:
        if not visibility.is_narrowed():
            raise
        raise DuplicateKeyError(message) from None


def _one_at_a_time(function: str, what: str) -> None:
    """Wait for whoever does the same at this moment: then it is seen what they did."""
    idempotency.claim_keys([idempotency.KeyClaim(function, what, ids.new_id())])


def check_token(token: str | None) -> None:
    """Raise unless the id of a form is one that was made for it."""
    try:
        fits = str(uuid.UUID(str(token))) == token
    except ValueError:
        fits = False
    if not fits:
        msg = "Expected the id that the form was shown with: load the page again."
        raise ConfigurationError(msg)
