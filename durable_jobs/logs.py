"""Log records of runs: which run they belong to, and what is kept with a step.

``LOGGING`` names the handler and the filter, so this module is importable before the
app registry is ready.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.error_text import (
    last_lines,
    loggable,
    message_of,
    recalls_body,
    storable_text,
    traceback_text,
    type_of,
)

#: Lines that are kept of one call of a body: the last ones.
LINES = 200
#: Characters that are kept of one message.
LONGEST = 2_000
_LONGEST_NAME = 200
#: Characters of an error's message in a log line.
_SHORT = 300

logger = logging.getLogger("durable_jobs")


class Lines:
    """What one call of a body logs. Lines are timed by ``began``, its own beginning.

    So their times are the run's, whatever the wall clock of this machine says.
    ``place`` names the step for log records (``RunFilter``).
    """

    __slots__ = ("_began", "_count", "_kept", "_since", "place")

    def __init__(self, began: datetime, place: Mapping[str, Any] | None = None) -> None:
        self.place = place or {}
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
#: The fields of the run whose function is executing; None outside runs.
_run: ContextVar[Mapping[str, Any] | None] = ContextVar("durable_run", default=None)

#: What a record about a run has as attributes, with the values outside runs.
FIELDS: Mapping[str, Any] = {
    "run_id": "",
    "function": "",
    "step": "",
    "step_key": "",
    "attempt": None,
    "queue": "",
    "version": "",
    "subject": "",
}


def fields(run: Any, **values: Any) -> dict[str, Any]:
    """Return the attributes of a log record about a run."""
    return {
        **FIELDS,
        "run_id": str(run.pk),
        "function": run.function,
        "attempt": run.attempt + 1,
        "queue": run.queue,
        "version": settings.VERSION,
        **values,
    }


def here() -> dict[str, Any]:
    """Return the fields of the run and the step that are executing."""
    run, lines = _run.get(), current.get()
    if run is None:
        return dict(FIELDS)
    return {**run, **lines.place} if lines is not None else dict(run)


@contextmanager
def about(run: Any) -> Iterator[None]:
    """Let log records inside the block belong to a run."""
    token = _run.set(fields(run))
    try:
        yield
    finally:
        _run.reset(token)


class RunFilter(logging.Filter):
    """Puts ``run_id``, ``function``, ``step`` and the like on each record.

    Add it to a handler. Records outside runs get empty values, so a format may name the
    fields. Values that a record has already are kept.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; let every record pass."""
        for name, value in here().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class Outage:
    """Logs once when a service becomes unreachable, and once when it is back.

    ``what`` begins the sentence: "The database". ``then`` says what happens until the
    service is back.
    """

    def __init__(self, what: str, then: str = "") -> None:
        self._what, self._then = what, f" {then}" if then else ""
        self._lock = threading.Lock()
        self._since: float | None = None

    @property
    def lasts(self) -> bool:
        """Return whether the service is known to be unreachable."""
        return self._since is not None

    def begin(self, error: BaseException) -> None:
        """Log an ERROR, unless the outage is known."""
        with self._lock:
            known, self._since = self._since, self._since or clock.monotonic()
        if known is None:
            logger.error(
                "%s is unreachable: %s.%s",
                self._what,
                one_line(type_of(error), message_of(error)),
                self._then,
                exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
            )

    def end(self) -> None:
        """Log an INFO with the length of the outage, if there was one."""
        if self._since is None:
            return
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            seconds = clock.monotonic() - since
            logger.info("%s is reachable again after %.1f s.", self._what, seconds)


def one_line(kind: str, message: object) -> str:
    """Return the type and the message of an error in one short line."""
    text = " ".join(str(message).split())
    text = text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
    return f"{kind}: {text}".removesuffix(": ").removesuffix(".")


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


class _Printable(logging.Filter):
    """Lets an error that cannot be printed be logged as one that can.

    The error of a failed step is printed with the traceback of its body, which the
    error itself does not have after a replay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Look at the error of a record; none is held back."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            like = loggable(error)
            if like is not error:
                record.exc_info = (type(like), like, like.__traceback__)
            elif recalls_body(error):
                record.exc_text = traceback_text(error)
        return True


_printable = _Printable()


def guard() -> None:
    """Let no error that our own loggers are given break whoever logs it."""
    for name in ("durable_jobs", "durable_jobs.run"):
        logging.getLogger(name).addFilter(_printable)


def _message(record: logging.LogRecord) -> str:
    """Return the message, with the type and the message of the error that it is of."""
    text = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        what = last_lines(error, LONGEST // 2)
        text = f"{text[: LONGEST - 1 - len(what)]}\n{what}"
    return storable_text(text[: LONGEST + 1], LONGEST)
