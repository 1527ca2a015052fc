"""Read input from outside: request bodies, and JSON from any untrusted source.

Request bodies, form fields, replies and command arguments are parsed by one function,
so that all of them have the same limits. The cost is linear in the size of the text:
the size is compared first, then the values are counted, then the standard library
parses the text with its own limit on depth.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from django.http import HttpRequest
from django.http.request import RawPostDataException, UnreadablePostError

from durable_jobs.exceptions import LimitExceeded, PayloadError
from durable_jobs.serialization.codec import to_tree

#: The most values in one text: many small values use much more memory than text.
MOST_VALUES = 250_000


def read_body(request: HttpRequest, most: int) -> bytes:
    """Return the raw body of a request.

    Raise ``LimitExceeded`` if the body has more than ``most`` bytes, without reading
    the rest. Raise ``PayloadError`` if the connection was lost.
    """
    if _length(request) > most:
        raise LimitExceeded(_too_large(most))
    try:
        body = request.read(most + 1)
        if len(body) <= most:
            # Later readers of request.body find it.
            request._body = body
    except (RawPostDataException, ValueError):
        # Middleware has read the body, and Django has stored it.
        body = request.body
    except UnreadablePostError:
        msg = "The request body ended early."
        raise PayloadError(msg) from None
    if len(body) > most:
        raise LimitExceeded(_too_large(most))
    return body


def has_body(request: HttpRequest) -> bool:
    """Return whether the headers announce a body, which may still be empty."""
    return "HTTP_TRANSFER_ENCODING" in request.META or _length(request) > 0


def _too_large(most: int) -> str:
    return f"Expected a body of at most {most} bytes."


def _length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        msg = "The Content-Length is not a number."
        raise PayloadError(msg) from None


def read_json(text: bytes, *, what: str, most: int) -> Any:
    """Return the value of a JSON text from outside that can be stored.

    Raise as ``parse_json``. Raise ``PayloadError`` if the value cannot be stored, for
    example with more than 100 levels.
    """
    value = parse_json(text, what=what, most=most)
    to_tree(value, what=what)
    return value


def parse_json(text: bytes, *, what: str, most: int) -> Any:
    """Return the value of a JSON text from outside.

    Raise ``LimitExceeded`` for more than ``most`` bytes or ``MOST_VALUES`` values.
    Raise ``PayloadError`` for invalid JSON, NaN, and a repeated name in one object.
    """
    check_size(text, what=what, most=most)
    try:
        return _decode(text.decode())
    except RecursionError:
        msg = f"{what} is nested too deep."
        raise PayloadError(msg) from None
    except ValueError as error:
        msg = f"{what} is not JSON: {error}"
        raise PayloadError(msg) from None


def check_size(text: bytes, *, what: str, most: int) -> None:
    """Raise ``LimitExceeded`` if a text has too many bytes or too many values."""
    if len(text) > most:
        msg = f"Expected {what} to be at most {most} bytes, got {len(text)}."
        raise LimitExceeded(msg)
    if _too_many(text):
        msg = f"Expected {what} to have at most {MOST_VALUES} values."
        raise LimitExceeded(msg)


def _too_many(text: bytes) -> bool:
    """Return whether a text has too many values, in linear time."""
    if _marks(text) <= MOST_VALUES:
        return False
    # Marks inside strings are not values: drop escapes first, then the strings.
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A string has two quotes. At most one name and one value share a mark.
    if bare.count(b'"') > 4 * (MOST_VALUES + 1):
        return True
    return _marks(b"".join(bare.split(b'"')[::2])) > MOST_VALUES


def _marks(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                msg = f"the name {name[:80]!r} occurs twice in one object"
                raise ValueError(msg)
            seen.add(name)
    return found


def _reject(name: str) -> NoReturn:
    msg = f"{name} is not allowed"
    raise ValueError(msg)


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_reject).decode
