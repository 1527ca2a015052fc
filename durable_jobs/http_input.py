"""The body of a request: as many bytes as are allowed, and no more."""

from __future__ import annotations

from django.http import HttpRequest
from django.http.request import RawPostDataException, UnreadablePostError

from durable_jobs.exceptions import LimitExceeded, PayloadError


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
