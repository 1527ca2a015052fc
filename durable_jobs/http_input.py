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

#: Values in one text. Many small values take much more memory than their text.
MOST_VALUES = 250_000


def read_body(request: HttpRequest, most: int) -> bytes:
    """Return the body as it came.

    Raises ``LimitExceeded`` when it has more than ``most`` bytes, before more are read,
    and ``PayloadError`` when it broke off.
    """
    if _length(request) > most:
        raise LimitExceeded(_too_large(most))
    try:
        body = request.read(most + 1)
        if len(body) <= most:
            # Whoever looks at request.body after us finds it.
            request._body = body
    except (RawPostDataException, ValueError):
        # Middleware has read it: then Django keeps it.
        body = request.body
    except UnreadablePostError:
        msg = "The body broke off."
        raise PayloadError(msg) from None
    if len(body) > most:
        raise LimitExceeded(_too_large(most))
    return body


def has_body(request: HttpRequest) -> bool:
    """Return whether the headers announce a body, which may have to be read to know."""
    return "HTTP_TRANSFER_ENCODING" in request.META or _length(request) > 0


def _too_large(most: int) -> str:
    return f"Expected a body of at most {most} bytes."


def _length(request: HttpRequest) -> int:
    try:
        return int(request.META.get("CONTENT_LENGTH") or 0)
    except ValueError:
        msg = "The Content-Length is no number."
        raise PayloadError(msg) from None


def read_json(text: bytes, *, what: str, most: int) -> Any:
    """Return the value of a JSON text from outside, which can be stored.

    Raise what ``parse_json`` raises, and ``PayloadError`` for a value that cannot be
    stored, such as one of more than 100 levels.
    """
    value = parse_json(text, what=what, most=most)
    to_tree(value, what=what)
    return value


def parse_json(text: bytes, *, what: str, most: int) -> Any:
    """Return the value of a JSON text from outside.

    Raise ``LimitExceeded`` for more than ``most`` bytes or ``MOST_VALUES`` values.
    Raise ``PayloadError`` for invalid JSON, NaN, and a name twice in one object.
    """
    check_size(text, what=what, most=most)
    try:
        return _decode(text.decode())
    except RecursionError:
        msg = f"{what} is nested too deep."
        raise PayloadError(msg) from None
    except ValueError as error:
        msg = f"{what} is no JSON: {error}"
        raise PayloadError(msg) from None


def check_size(text: bytes, *, what: str, most: int) -> None:
    """Raise ``LimitExceeded`` for a text of too many bytes, or of too many values."""
    if len(text) > most:
        msg = f"Expected {what} to be at most {most} bytes, got {len(text)}."
        raise LimitExceeded(msg)
    if _too_many(text):
        msg = f"Expected {what} to hold at most {MOST_VALUES} values."
        raise LimitExceeded(msg)


def _too_many(text: bytes) -> bool:
    """Return whether a text holds too many values; linear for every text."""
    if _marks(text) <= MOST_VALUES:
        return False
    # The marks inside of strings are no values: drop what is escaped, then the strings.
    bare = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A string has two quotes, and at most a name and a value share one mark.
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
                msg = f"the name {name[:80]!r} is twice in one object"
                raise ValueError(msg)
            seen.add(name)
    return found


def _refuse(name: str) -> NoReturn:
    msg = f"{name} is not allowed"
    raise ValueError(msg)


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse).decode
