"""Verify a delivery, transform it into events, and store all of them or none."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest

from durable_jobs import clock
from durable_jobs.control_flow import reraise_control
from durable_jobs.definitions.events import WEBHOOK_FAILED, NewEvent
from durable_jobs.definitions.names import MAX_LENGTH
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.signature_schemes import Delivery, Scheme, Unverified
from durable_jobs.definitions.templates import make_event
from durable_jobs.definitions.verify import Unsigned
from durable_jobs.definitions.webhooks import Webhook
from durable_jobs.error_text import message_of, summary_of, type_of
from durable_jobs.events import send_event
from durable_jobs.exceptions import ConfigurationError, PayloadError
from durable_jobs.serialization import private_copy
from durable_jobs.store import db
from durable_jobs.webhooks.parsing import RejectedDelivery

logger = logging.getLogger("durable_jobs")

SOURCE = "webhook"
NOT_VERIFIED = "The delivery could not be verified."
FAILED = "The delivery could not be turned into an event."
MAX_MESSAGE_LENGTH = 1000


def precheck(hook: Webhook, request: HttpRequest) -> None:
    """Raise ``RejectedDelivery`` if the headers alone are invalid."""
    check = hook.verify
    if isinstance(check, Scheme):
        with _reject_on_error(hook):
            check.precheck(request.headers, clock.now())


def verify(hook: Webhook, request: HttpRequest, body: bytes) -> None:
    """Raise the same ``RejectedDelivery`` for every failed verification."""
    check = hook.verify
    with _reject_on_error(hook):
        if isinstance(check, Scheme | Unsigned):
            check.check(Delivery(body, request.headers, clock.now()))
        # Only True counts: a coroutine that is never awaited is truthy.
        elif check is None or check(request) is not True:
            raise Unverified("verify returned false")


@contextmanager
def _reject_on_error(hook: Webhook) -> Iterator[None]:
    """Turn every error of a check into the same rejection."""
    try:
        yield
    except Unverified as error:
        raise RejectedDelivery(401, NOT_VERIFIED, str(error)) from None
    except BaseException as error:  # any error rejects the delivery
        reraise_control(error)
        logger.exception("Webhook %s: the verification raised an error.", hook.path)
        reason = f"{type_of(error)} while verifying"
        raise RejectedDelivery(401, NOT_VERIFIED, reason) from None


def handshake(hook: Webhook, payload: Any) -> str | None:
    """Return the response to a provider's handshake request, or None."""
    check = hook.verify
    return check.handshake(payload) if isinstance(check, Scheme | Unsigned) else None


def accept(hook: Webhook, headers: Mapping[str, str], payload: Any) -> list[str]:
    """Store a delivery's events, start their functions, and return the event ids.

    If the transformation fails, store a ``durable/webhook.failed`` event and raise
    ``RejectedDelivery``.
    """
    delivery = _delivery_id(hook, headers, payload)
    try:
        events = _identified(hook, delivery, _transformed(hook, headers, payload))
        with db.atomic():
            functions = [function for function, _ in registry.webhooks(hook.path)]
            return send_event.send(
                events, SOURCE, allow_reserved={hook.event}, to=functions
            )
    except DatabaseError:
        raise  # the delivery is valid: the provider should retry
    except BaseException as error:  # reject, and record the failure as an event
        reraise_control(error)
        logger.exception("Webhook %s: a delivery failed.", hook.path)
        _record(hook, delivery, payload, error)
        raise RejectedDelivery(422, FAILED, summary_of(error)) from None


def _transformed(
    hook: Webhook, headers: Mapping[str, str], payload: Any
) -> list[NewEvent]:
    transform = hook.transform
    if transform is None:
        return [NewEvent(hook.event, payload)]
    if isinstance(transform, Mapping):
        return [make_event(transform, hook.event, payload, headers)]
    # A copy: if the transform fails, the original payload is recorded.
    made = transform(private_copy(payload), headers)
    if made is None:
        return []
    events = list(made) if isinstance(made, list | tuple) else [made]
    for event in events:
        if not isinstance(event, NewEvent):
            msg = (
                f"Webhook({hook.path!r}): expected transform to return a "
                f"durable.NewEvent, a list of them, or None, got {event!r:.80}."
            )
            raise ConfigurationError(msg)
    return events


def _identified(
    hook: Webhook, delivery: str | None, events: list[NewEvent]
) -> list[NewEvent]:
    """Derive event ids from the delivery id, so that a repeated delivery is ignored."""
    if delivery is None:
        return events
    made = []
    for number, event in enumerate(events):
        derived_id = _id(
            SOURCE, hook.path, f"{delivery}:{number}" if number else delivery
        )
        made.append(event if event.id is not None else replace(event, id=derived_id))
    return made


def _delivery_id(hook: Webhook, headers: Mapping[str, str], payload: Any) -> str | None:
    if isinstance(hook.verify, Scheme | Unsigned):
        return hook.verify.delivery_id(headers, payload) or None
    return None


def _id(kind: str, path: str, delivery: str) -> str:
    """Return an event id that is unique to this path and can be stored."""
    found = f"{kind}:{path}:{delivery}"
    if len(found) <= MAX_LENGTH and found.isprintable() and found == found.strip():
        return found
    return f"{kind}:{path}:{hashlib.sha256(delivery.encode()).hexdigest()}"


def _record(
    hook: Webhook, delivery: str | None, payload: Any, error: BaseException
) -> None:
    data: dict[str, Any] = {
        "path": hook.path,
        "delivery": delivery,
        "error": {
            "type": type_of(error),
            "message": message_of(error, MAX_MESSAGE_LENGTH),
        },
    }
    id = None if delivery is None else _id("webhook-failed", hook.path, delivery)
    for kept in ({**data, "body": payload}, data):
        try:
            with db.atomic():
                send_event.send(
                    [NewEvent(WEBHOOK_FAILED, kept, id=id)], SOURCE, allow_reserved=True
                )
        except PayloadError:
            continue  # too large with the body: store it without
        return
