"""Bodies: as large and as many-parted as is allowed, of a known type, read strictly."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

from django.http import HttpRequest
from ninja.parser import Parser

from durable_jobs.api.problems import Problem
from durable_jobs.conf import settings
from durable_jobs.exceptions import LimitExceeded
from durable_jobs.serialization.incoming import read_body
from durable_jobs.serialization.outside import read_json

JSON = "application/json"
LINES = ("application/x-ndjson", "application/ndjson")
#: Values in one body: many small ones take far more memory than their text.
MOST_VALUES = 250_000
_UTF_8 = ("utf-8", "utf8", "us-ascii")
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_KEPT = "_durable_jobs_body"


class StrictParser(Parser):
    """Give what ``read`` has read."""

    def parse_body(self, request: HttpRequest) -> Any:
        """Return the value of the body."""
        return getattr(request, _KEPT)


def read(request: HttpRequest, *, lines: bool = False) -> None:
    """Read the body, for ``value`` and for the parser.

    ``lines``: it may be one JSON value a line. Raises ``LimitExceeded``,
    ``PayloadError``, and the problem of a type that is not known.
    """
    if request.method != "POST":
        return
    body = read_body(request, settings.MAX_REQUEST_BYTES)
    if not body.strip():
        setattr(request, _KEPT, None)
        request._body = b""
        return
    kind = (request.content_type or "").lower()
    charset = (request.content_params or {}).get("charset", "utf-8").lower()
    by_line = lines and kind in LINES
    if charset not in _UTF_8 or not (by_line or _is_json(kind)):
        expected = " or ".join([JSON, *(LINES[:1] if lines else ())])
        msg = f"Expected a body of {expected}, in UTF-8."
        raise Problem(415, "unsupported-media-type", msg)
    _check_values(body)
    setattr(request, _KEPT, _lines(body) if by_line else _one(body))


def value(request: HttpRequest) -> Any:
    """Return what a body says; a list where it has a value a line."""
    return getattr(request, _KEPT)


def _is_json(kind: str) -> bool:
    return kind == JSON or (kind.startswith("application/") and kind.endswith("+json"))


def _one(body: bytes) -> Any:
    return read_json(body, what="the body")


def _lines(body: bytes) -> list[Any]:
    found: list[Any] = []
    for number, line in enumerate(BytesIO(body), 1):
        if not line.strip():
            continue
        if len(found) == settings.MAX_EVENTS:
            msg = f"Expected at most {settings.MAX_EVENTS} lines (setting MAX_EVENTS)."
            raise LimitExceeded(msg)
        found.append(read_json(line, what=f"line {number}"))
    return found


def _check_values(body: bytes) -> None:
    bare = _TEXT.sub(b"", body)
    count = sum(bare.count(mark) for mark in (b",", b"[", b"{"))
    if count > MOST_VALUES:
        msg = f"Expected a body of at most {MOST_VALUES} values."
        raise LimitExceeded(msg)
