"""Encode the end of a page as an opaque cursor."""

from __future__ import annotations

import base64
import uuid

from durable_jobs.exceptions import FilterError

_RUN, _NUMBER = b"r", b"n"


def of_run(key: uuid.UUID | None) -> str | None:
    """Return the cursor for the runs after a run."""
    return None if key is None else _text(_RUN + key.bytes)


def of_number(key: int | None) -> str | None:
    """Return the cursor for the rows above a number."""
    return None if key is None else _text(_NUMBER + key.to_bytes(8, "big", signed=True))


def run(text: str | None) -> uuid.UUID | None:
    """Return the run of a cursor. Raise ``FilterError`` if the cursor is invalid."""
    return None if text is None else uuid.UUID(bytes=_read(text, _RUN, 16))


def number(text: str | None) -> int | None:
    """Return the number of a cursor. Raise ``FilterError`` if the cursor is invalid."""
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
    # Reject other encodings of the same bytes.
    if raw[:1] != kind or len(raw) != length + 1 or _text(raw) != text:
        msg = f"Expected the 'next' of a page as the cursor, got {text!r:.80}."
        raise FilterError(msg)
    return raw[1:]
