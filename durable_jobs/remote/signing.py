"""Signatures of requests and replies: HMAC-SHA256 over the body and the time.

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
#: Seconds by which the time of a signature may differ from ours.
WINDOW = 300

_PREFIX = re.compile(r"signkey-\w+-")
_SECONDS = re.compile(r"[0-9]{1,12}")


def signature(canonical: bytes, key: str, now: int) -> str:
    """Return the header's value for a body in its canonical form."""
    return f"t={now}&s={_digest(canonical, key, str(now))}"


def verified(body: bytes, header: str, keys: Iterable[str], now: float) -> bool:
    """Tell whether a reply was signed with one of the keys, and lately."""
    parts: dict[str, list[Any]] = parse_qs(header)
    at, given = parts.get("t", [""])[0], parts.get("s", [""])[0]
    if not _SECONDS.fullmatch(at) or abs(now - int(at)) > WINDOW or not given.isascii():
        return False
    return any(hmac.compare_digest(given, _digest(body, key, at)) for key in keys)


def _digest(body: bytes, key: str, at: str) -> str:
    secret = key[len(match.group()) :] if (match := _PREFIX.match(key)) else key
    return hmac.new(secret.encode(), body + at.encode(), "sha256").hexdigest()
