"""Signatures of requests and replies: HMAC-SHA256 of the body and the time.

A request is signed over its canonical JSON (RFC 8785), a reply over its bytes. The
header is ``t=<seconds>&s=<hex>``.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

HEADER = "x-inngest-signature"
#: The greatest age of a signature in seconds, in the past or the future.
WINDOW = 300

_PREFIX = re.compile(r"signkey-\w+-")
_SECONDS = re.compile(r"[0-9]{1,12}")


def signature(canonical: bytes, key: str, now: int) -> str:
    """Return the header value for a canonical body."""
    return f"t={now}&s={_digest(canonical, key, str(now))}"


def verified(body: bytes, header: str, keys: Iterable[str], now: float) -> bool:
    """Return whether a reply has a recent signature by one of the keys."""
    parts: dict[str, list[Any]] = parse_qs(header)
    at, given = parts.get("t", [""])[0], parts.get("s", [""])[0]
    if not _SECONDS.fullmatch(at) or abs(now - int(at)) > WINDOW or not given.isascii():
        return False
    return any(hmac.compare_digest(given, _digest(body, key, at)) for key in keys)


def _digest(body: bytes, key: str, at: str) -> str:
    secret = key[len(match.group()) :] if (match := _PREFIX.match(key)) else key
    return hmac.new(secret.encode(), body + at.encode(), "sha256").hexdigest()
