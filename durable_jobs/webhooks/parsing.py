"""Read a delivery's body strictly: limited size and known media types."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from django.http import HttpRequest

from durable_jobs.conf import settings
from durable_jobs.exceptions import LimitExceeded, PayloadError
from durable_jobs.http_input import read_body, read_json

MAX_FIELDS = 1000
FORM = "application/x-www-form-urlencoded"


class RejectedDelivery(Exception):
    """A delivery is rejected. ``reason`` goes to the log only.

    ``wait`` is the number of seconds until the provider may retry.
    """

    def __init__(
        self, status: int, message: str, reason: str = "", *, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.wait = wait
        self.status = status
        self.message = message
        self.reason = reason or message


def raw_body(request: HttpRequest) -> bytes:
    """Return the raw body. Raise ``RejectedDelivery`` if it is too large."""
    try:
        return read_body(request, settings.MAX_EVENT_BYTES)
    except LimitExceeded as error:
        raise RejectedDelivery(413, error.message) from None
    except PayloadError as error:
        raise RejectedDelivery(400, error.message) from None


def payload_of(request: HttpRequest, body: bytes) -> Any:
    """Return the parsed body. Raise ``RejectedDelivery`` if it is invalid."""
    kind = (request.content_type or "").lower()
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    json = kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json")
    )
    if charset not in ("utf-8", "utf8", "us-ascii") or not (json or kind == FORM):
        raise RejectedDelivery(415, f"Expected application/json or {FORM}, in UTF-8.")
    try:
        most = settings.MAX_EVENT_BYTES
        return read_json(body, what="the body", most=most) if json else _form(body)
    except LimitExceeded as error:
        raise RejectedDelivery(413, error.message) from None
    except PayloadError as error:
        raise RejectedDelivery(400, error.message) from None


def _form(body: bytes) -> dict[str, Any]:
    """Return the fields by name. A repeated field becomes a list."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        msg = f"Expected a form with at most {MAX_FIELDS} fields."
        raise PayloadError(msg) from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if "\0" in name + value:
            msg = "Expected a form without NUL characters."
            raise PayloadError(msg)
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found
