"""Cursors: where a page ended, as a text that says nothing to others."""

from __future__ import annotations

import base64
import uuid

from durable_jobs.exceptions import FilterError

_RUN, _NUMBER = b"r", b"n"


def of_run(key: uuid.UUID | None) -> str | None:
    """Return the cursor for what is below a run."""
    return None if key is None else _text(_RUN + key.bytes)


def of_number(key: int | None) -> str | None:
    """Return the cursor for what is above a row's number."""
    return None if key is None else _text(_NUMBER + key.to_bytes(8, "big", signed=True))


def run(text: str | None) -> uuid.UUID | None:
    """Return the run that a cursor is of; raise ``FilterError`` for any other text."""
    return None if text is None else uuid.UUID(bytes=_read(text, _RUN, 16))


def number(text: str | None) -> int | None:
    """Return the number that a cursor is of; raise ``FilterError``."""
    if text is None:
        return None
    return int.from_bytes(_read(text, _NUMBER, 8), "big", signed=True)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read(text: str, kind: bytes, length: int) -> bytes:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
    except ValueError:
        raw = b""
    # What is written another way than we write it is none of ours either.
    if raw[:1] != kind or len(raw) != length + 1 or _text(raw) != text:
        msg = f"Expected the 'next' of a page as the cursor, got {text!r:.80}."
        raise FilterError(msg)
    return raw[1:]
