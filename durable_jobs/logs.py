"""What the bodies of steps log, kept with their steps.

``LOGGING`` names the handler, so this is importable before the app registry is ready.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from durable_jobs.serialization.texts import storable_text

#: Lines that are kept of one call of a body: the last ones.
LINES = 200
#: Characters that are kept of one message.
LONGEST = 2_000
_LONGEST_NAME = 200


class Lines:
    """What one call of a body logs. Lines are timed by ``began``, its own beginning.

    So their times are the run's, whatever the wall clock of this machine says.
    """

    __slots__ = ("_began", "_count", "_kept", "_since")

    def __init__(self, began: datetime) -> None:
        self._began, self._since = began, time.monotonic()
        self._kept: deque[dict[str, str]] | None = None
        self._count = 0

    def add(self, level: str, logger: str, message: str) -> None:
        """Keep a line, and let go of the first one when there are too many."""
        kept = self._kept
        if kept is None:
            kept = self._kept = deque(maxlen=LINES)
        at = self._began + timedelta(seconds=time.monotonic() - self._since)
        line = {"at": at.isoformat(), "level": level, "logger": logger}
        kept.append({**line, "message": message})
        self._count += 1

    def taken(self) -> dict[str, Any] | None:
        """Return the lines, and how many were left out; None where nothing is new."""
        kept = self._kept
        if kept is None:
            return None
        # A copy first: a thread that was left behind may still be logging.
        lines = list(kept.copy())
        left_out = max(self._count - len(lines), 0)
        self._kept, self._count = None, 0
        return {"lines": lines, "left_out": left_out}


#: The lines of the body that is executing; None outside bodies.
current: ContextVar[Lines | None] = ContextVar("durable_lines", default=None)


@contextmanager
def kept(lines: Lines | None) -> Iterator[None]:
    """Keep what the code inside logs; with None, nothing of it."""
    token = current.set(lines)
    try:
        yield
    finally:
        current.reset(token)


class StepHandler(logging.Handler):
    """Keeps with a step what its body logs; what is logged elsewhere, it ignores.

    Put it on the loggers whose lines are wanted. Its level and its filters count, as
    those of any handler; lines have a form of their own, so a formatter does not.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record, if it is of a step's body."""
        lines = current.get()
        if lines is None:
            return
        try:
            level = storable_text(record.levelname, _LONGEST_NAME)
            name = storable_text(record.name, _LONGEST_NAME)
            lines.add(level, name, _message(record))
        except Exception:  # noqa: BLE001  # logging's rule: no record breaks who logs
            self.handleError(record)


def _message(record: logging.LogRecord) -> str:
    """Return the message, with the type and the message of the error that it is of."""
    text = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        what = "".join(traceback.format_exception_only(error)).strip()
        what = what[: LONGEST // 2]
        text = f"{text[: LONGEST - 1 - len(what)]}\n{what}"
    return storable_text(text[: LONGEST + 1], LONGEST)
