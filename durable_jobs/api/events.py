"""Endpoints that send events and signals."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Status
from pydantic import ValidationError

from durable_jobs.api import parsing
from durable_jobs.api.auth import (
    actor_with,
    address_part,
    authenticators,
    require,
    with_permission,
)
from durable_jobs.api.problems import MOST_ERRORS, Problem, error_item, responses
from durable_jobs.api.schemas import EventIn, Ids, SignalIn, WokenRunOut
from durable_jobs.conf import settings
from durable_jobs.control import send
from durable_jobs.control.actor import Actor
from durable_jobs.definitions.events import NewEvent
from durable_jobs.exceptions import LimitExceeded
from durable_jobs.queries import visibility

router = Router(tags=["events"])

KEY = "Idempotency-Key"
_EVENT = EventIn.model_json_schema()
_BODY = {
    "required": True,
    "content": {
        parsing.JSON: {
            "schema": {"anyOf": [_EVENT, {"type": "array", "items": _EVENT}]}
        },
        parsing.LINES[0]: {"schema": {"type": "string"}},
    },
}
_HEADER = {
    "in": "header",
    "name": KEY,
    "required": False,
    "description": "The id of the event. Sending the same id again has no effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


@router.post(
    "/events",
    auth=authenticators(with_permission(send.SEND), lines=True),
    response=responses({202: Ids}, 409, 415),
    openapi_extra={"requestBody": _BODY, "parameters": [_HEADER]},
)
def send_events(request: HttpRequest) -> Any:
    """Send one event, an array of events, or NDJSON. All are stored, or none."""
    actor = actor_with(request, send.SEND)
    events = _identified(request, _events(parsing.value(request)))
    return Status(202, {"ids": send.send(actor, events, _source(actor))})


def _may_signal(request: HttpRequest, actor: Actor) -> None:
    require(actor, send.SIGNAL)
    send.check_signal(actor, address_part(request, "name"))


@router.post(
    "/signals/{path:name}",
    auth=authenticators(_may_signal),
    response=responses({200: WokenRunOut}, 415),
    tags=["signals"],
)
def send_signal(
    request: HttpRequest, name: str, payload: SignalIn | None = None
) -> Any:
    """Wake the run that waits for a signal. If no run waits, the signal is dropped."""
    actor = actor_with(request, send.SIGNAL)
    data = payload.data if payload else None
    run = send.signal(actor, name, data)
    shown = run is not None and visibility.sees(run)
    return {"run": run.pk if run is not None and shown else None}


def _events(value: Any) -> list[NewEvent]:
    given = value if isinstance(value, list) else [value]
    if len(given) > settings.MAX_EVENTS:
        msg = (
            f"Expected at most {settings.MAX_EVENTS} events at once, got {len(given)} "
            f"(setting MAX_EVENTS)."
        )
        raise LimitExceeded(msg)
    found, errors = [], []
    for number, one in enumerate(given):
        try:
            read = EventIn.model_validate(one)
        except ValidationError as error:
            location = [str(number)] if isinstance(value, list) else []
            errors += [
                error_item("body", [*location, *each["loc"]], each["msg"])
                for each in error.errors(include_url=False, include_input=False)
            ]
            if len(errors) >= MOST_ERRORS:
                break
            continue
        found.append(NewEvent(**dict(read)))
    if errors:
        detail = "Expected events, as objects with a name and data."
        raise Problem(422, "invalid", detail, errors=errors[:MOST_ERRORS])
    return found


def _identified(request: HttpRequest, events: list[NewEvent]) -> list[NewEvent]:
    """Give the event the id from the ``Idempotency-Key`` header."""
    key = request.headers.get(KEY)
    if key is None:
        return events
    if len(events) != 1 or events[0].id not in (None, key):
        msg = f"Expected {KEY} with one event that has no other id."
        raise Problem(422, "invalid", msg)
    one = events[0]
    return [NewEvent(one.name, one.data, key, one.ts, one.user, one.v)]


def _source(actor: Actor) -> str:
    """Return the source that is stored with the events."""
    return "api" if actor.key is None else f"api key {actor.key}"
