"""What people start: events that they send, and runs that they start by hand.

Each form carries an id that was made when it was shown: what is sent with it is sent
once, however often the form comes.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.exceptions import PermissionDenied

from durable_jobs.control import auditing
from durable_jobs.control.acting import Actor
from durable_jobs.definitions.events import NewEvent, check_mapping
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import OWN
from durable_jobs.events import ingest, starting
from durable_jobs.exceptions import ConfigurationError, Refused
from durable_jobs.models import Event, IdempotencyKey, Run
from durable_jobs.store import db
from durable_jobs.types import Duration

#: The ``source`` of events that people send.
ADMIN = "admin"
SEND = "durable_jobs.send_event"
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


def send(actor: Actor, event: NewEvent, *, note: str = "") -> Sent:
    """Send an event, checked as ``durable.send`` does, and write down who did it.

    Its ``id`` is that of the form: one that was sent already is not sent again. Raises
    ``PermissionDenied``, and what ``durable.send`` raises.
    """
    if not actor.may(SEND):
        raise PermissionDenied
    check_token(event.id)
    with db.atomic():
        rows = Event.objects.using(db.alias()).filter(pk=event.id)
        known = rows.first()
        if known is not None:
            return Sent(known, new=False)
        ingest.send([event], ADMIN)
        sent = rows.get()
        auditing.write(actor, sent, f"Sent{note}.")
    return Sent(sent, new=True)


def resend(actor: Actor, event: Event, token: str) -> Sent:
    """Send a new event with the name, the data and the user of one that came before."""
    again = NewEvent(
        event.name, event.data, id=token, user=event.user, v=event.v or None
    )
    with db.atomic():
        sent = send(actor, again, note=f" again, as {event.pk} was")
        if sent.new:
            auditing.write(actor, event, f"Sent again as {sent.event.pk}.")
    return sent


def start(
    actor: Actor,
    function: Function,
    data: Any,
    *,
    token: str,
    key: str = "",
    run_after: Duration | datetime | None = None,
    priority: int = 0,
) -> Started:
    """Start a run by hand, and write down who did it.

    ``token`` is the id of the form, which stands for a ``key`` where none is given:
    with the same one and the same data, the run that is there is returned. Raises
    ``PermissionDenied``, and what ``function.enqueue`` raises.
    """
    if not actor.may(START):
        raise PermissionDenied
    if function.id.startswith(OWN):
        # What they are given says who acts.
        msg = f"{function.id!r} is the app's own: it is begun by what it is for."
        raise Refused(msg)
    check_token(token)
    wanted = key or f"form:{token}"
    chosen = function.using(key=wanted, run_after=run_after, priority=priority)
    check_mapping(data, f"the data of {function.id!r}")
    with db.atomic():
        rows = IdempotencyKey.objects.using(db.alias())
        before = rows.filter(function=function.id, key=f"key:{wanted}").first()
        run = starting.enqueue(chosen, data)
        new = before is None or before.run_id != run.pk
        if new:
            auditing.record(actor, run, "Run started by hand.")
    return Started(run, new)


def check_token(token: str | None) -> None:
    """Raise unless the id of a form is one that was made for it."""
    try:
        fits = str(uuid.UUID(str(token))) == token
    except ValueError:
        fits = False
    if not fits:
        msg = "Expected the id that the form was shown with: load the page again."
        raise ConfigurationError(msg)
