"""A delivery's body: at most so large, of a type that is known, and read strictly."""

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
    """A delivery is not accepted. ``reason`` is for the log alone.

    ``wait``: after so many seconds it may be sent again.
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
    """Return the body as it came; raise ``Rejected`` when it is too large."""
    try:
        return read_body(request, settings.MAX_EVENT_BYTES)
    except LimitExceeded as error:
        raise RejectedDelivery(413, error.message) from None
    except PayloadError as error:
        raise RejectedDelivery(400, error.message) from None


def payload_of(request: HttpRequest, body: bytes) -> Any:
    """Return what a body says; raise ``Rejected`` when it cannot be read."""
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
    """Return the fields by name; one that comes more than once is a list."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except ValueError:
        msg = f"the body is no form of at most {MAX_FIELDS} fields."
        raise PayloadError(msg) from None
    found: dict[str, Any] = {}
    for name, value in pairs:
        if "\0" in name + value:
            msg = "the body has a NUL character in it."
            raise PayloadError(msg)
        if name not in found:
            found[name] = value
        elif isinstance(found[name], list):
            found[name].append(value)
        else:
            found[name] = [found[name], value]
    return found
