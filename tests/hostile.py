"""Bodies that cost a careless parser more than linear time, and unread bodies."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any, NoReturn

MEGABYTE = 2**20
#: The pattern that is repeated to fill a body, by the name of the case.
PATTERNS = {
    "escaped quotes": b'"\\',
    "quotes": b'"',
    "backslashes": b"\\",
    "strings without an end": b'"a',
    "lists": b"[[",
    "objects": b'{"a":',
    "empty lists": b"[],",
    "empty strings": b'"",',
    "digits": b"1",
    "exponents": b"1e",
    "blanks": b" ",
    "bytes that are no text": b"\xff",
}
#: Seconds of processor time for one megabyte.
MOST_SECONDS = 0.1


def body(pattern: str, size: int) -> bytes:
    """Return a pattern repeated to ``size`` bytes."""
    unit = PATTERNS[pattern]
    return (unit * (size // len(unit) + 1))[:size]


def in_linear_time(size: int, call: Callable[[], Any]) -> Any:
    """Return a call's result; fail if it takes more time than its size allows.

    It has three tries: the first may import modules, and a machine may be busy.
    """
    allowed = MOST_SECONDS * max(size / MEGABYTE, 1)
    for _ in range(3):
        begin = time.thread_time()
        found = call()
        spent = time.thread_time() - begin
        if spent < allowed:
            return found
    raise AssertionError(f"{spent:.3f} s of processor for {size} bytes")


class Unreadable(io.RawIOBase):
    """The stream of a body that must not be read."""

    def read(self, size: int = -1) -> NoReturn:
        """Fail."""
        raise AssertionError("the body was read")


def unread(size: int = 1000, kind: str = "application/json") -> dict[str, Any]:
    """Return the WSGI environment of a body of ``size`` bytes that must not be read."""
    return {
        "wsgi.input": Unreadable(),
        "CONTENT_LENGTH": str(size),
        "CONTENT_TYPE": kind,
    }
