"""Read request bodies strictly: limited size, known media types, valid UTF-8 JSON."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser

from durable_jobs.api.problems import Problem
from durable_jobs.conf import settings
from durable_jobs.exceptions import LimitExceeded
from durable_jobs.http_input import check_size, has_body, read_body, read_json

JSON = "application/json"
LINES = ("application/x-ndjson", "application/ndjson")
#: The most names in the object of a body. No endpoint has that many.
MOST_NAMES = 50
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
_UTF_8 = ("utf-8", "utf8", "us-ascii")
_KEPT = "_durable_jobs_body"


class StrictParser(Parser):
    """A parser that returns the body that ``read`` has parsed."""

    def parse_body(self, request: HttpRequest) -> Any:
        return getattr(request, _KEPT)


def read(request: HttpRequest, *, lines: bool = False) -> None:
    """Parse the body and keep it for ``value`` and for the parser.

    ``lines`` allows NDJSON. Raise ``LimitExceeded``, ``PayloadError``, or a 415
    problem for an unknown media type.
    """
    if request.method != "POST":
        return
    body = read_body(request, settings.MAX_REQUEST_BYTES)
    if not body.strip():
        setattr(request, _KEPT, None)
        request._body = b""
        return
    found = _lines(body) if _by_line(request, lines) else _one(body)
    for one in found if isinstance(found, list) else [found]:
        _check_names(one)
    setattr(request, _KEPT, found)


def _check_names(value: Any) -> None:
    """Raise for an object with too many names. Each unknown name would be an error."""
    if isinstance(value, dict) and len(value) > MOST_NAMES:
        msg = f"Expected an object with at most {MOST_NAMES} names, got {len(value)}."
        raise Problem(422, "invalid", msg)


def refuse_form(request: HttpRequest) -> None:
    """Raise for form bodies, which Django's CSRF check would read."""
    if request.content_type in _FORMS and has_body(request):
        _by_line(request, lines=False)


def _by_line(request: HttpRequest, lines: bool) -> bool:
    """Return whether a body is NDJSON. Raise for an unknown media type."""
    kind = (request.content_type or "").lower()
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    by_line = lines and kind in LINES
    if charset not in _UTF_8 or not (by_line or _is_json(kind)):
        expected = " or ".join([JSON, *(LINES[:1] if lines else ())])
        msg = f"Expected a body of {expected}, in UTF-8."
        raise Problem(415, "unsupported-media-type", msg)
    return by_line


def value(request: HttpRequest) -> Any:
    """Return the parsed body: a list for NDJSON."""
    return getattr(request, _KEPT)


def _is_json(kind: str) -> bool:
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def _one(body: bytes) -> Any:
    return read_json(body, what="the body", most=settings.MAX_REQUEST_BYTES)


def _lines(body: bytes) -> list[Any]:
    # The values of all lines are in memory at once.
    check_size(body, what="the body", most=settings.MAX_REQUEST_BYTES)
    found: list[Any] = []
    for number, line in enumerate(BytesIO(body), 1):
        if not line.strip():
            continue
        if len(found) == settings.MAX_EVENTS:
            msg = f"Expected at most {settings.MAX_EVENTS} lines (setting MAX_EVENTS)."
            raise LimitExceeded(msg)
        found.append(read_json(line, what=f"line {number}", most=len(line)))
    return found
