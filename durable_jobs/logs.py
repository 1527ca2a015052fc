"""Log records of runs: the fields of the run, and the lines stored with a step.

Django imports the handler and the filter of ``LOGGING`` before the app registry is
ready, so this module must not need it.
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
    has_recorded_traceback,
    last_lines,
    loggable,
    message_of,
    storable_text,
    traceback_text,
    type_of,
)

#: The number of last lines that are kept of one call of a body.
LINES = 200
#: Characters that are kept of one message.
MAX_MESSAGE = 2_000
_MAX_NAME = 200
#: Characters of an error's message in one line.
_MAX_SUMMARY = 300

logger = logging.getLogger("durable_jobs")


class Lines:
    """The log lines of one call of a body.

    The time of a line is relative to ``began``, so that it follows the clock of the run
    and not the clock of this machine. ``step_fields`` are the fields of the step for
    log records (``RunContextFilter``).
    """

    __slots__ = ("_began", "_count", "_kept", "_since", "step_fields")

    def __init__(
        self, began: datetime, step_fields: Mapping[str, Any] | None = None
    ) -> None:
        self.step_fields = step_fields or {}
        self._began, self._since = began, time.monotonic()
        self._kept: deque[dict[str, str]] | None = None
        self._count = 0

    def add(self, level: str, logger: str, message: str) -> None:
        """Keep a line; drop the first line if there are too many."""
        kept = self._kept
        if kept is None:
            kept = self._kept = deque(maxlen=LINES)
        at = self._began + timedelta(seconds=time.monotonic() - self._since)
        line = {"at": at.isoformat(), "level": level, "logger": logger}
        kept.append({**line, "message": message})
        self._count += 1

    def take(self) -> dict[str, Any] | None:
        """Return and clear the lines and the number left out, or None without lines."""
        kept = self._kept
        if kept is None:
            return None
        # Copy first, because an abandoned thread may still be logging.
        lines = list(kept.copy())
        left_out = max(self._count - len(lines), 0)
        self._kept, self._count = None, 0
        return {"lines": lines, "left_out": left_out}


#: The lines of the executing body, or None outside a body.
current_lines: ContextVar[Lines | None] = ContextVar("durable_lines", default=None)
#: The fields of the executing run, or None outside a run.
_run: ContextVar[Mapping[str, Any] | None] = ContextVar("durable_log_run", default=None)

#: The attributes of a record about a run, with their values outside runs.
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


def current_fields() -> dict[str, Any]:
    """Return the fields of the executing run and step."""
    run, lines = _run.get(), current_lines.get()
    if run is None:
        return dict(FIELDS)
    return {**run, **lines.step_fields} if lines is not None else dict(run)


@contextmanager
def adding_run_fields(run: Any) -> Iterator[None]:
    """Add the fields of a run to the log records inside the block."""
    token = _run.set(fields(run))
    try:
        yield
    finally:
        _run.reset(token)


class RunContextFilter(logging.Filter):
    """Add ``run_id``, ``function``, ``step`` and the other fields to each record.

    Add the filter to a handler. Records outside runs get empty values, so that a format
    may use the fields. Values that a record already has are kept.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; accept every record."""
        for name, value in current_fields().items():
            if not hasattr(record, name):
                setattr(record, name, value)
        return True


class Outage:
    """Log once when a service becomes unreachable, and once when it is reachable.

    ``what`` is the subject of the sentence, for example "The database". ``then`` says
    what happens during the outage.
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
    """Return the type and the message of an error as one short line."""
    text = " ".join(str(message).split())
    text = text if len(text) <= _MAX_SUMMARY else f"{text[: _MAX_SUMMARY - 1]}…"
    return f"{kind}: {text}".removesuffix(": ").removesuffix(".")


@contextmanager
def capturing(lines: Lines | None) -> Iterator[None]:
    """Collect the log lines of the block in ``lines``, or none with None."""
    token = current_lines.set(lines)
    try:
        yield
    finally:
        current_lines.reset(token)


class StepHandler(logging.Handler):
    """Store the log lines of a step's body with the step; ignore other records.

    Add the handler to the loggers whose lines you want. Its level and filters apply. A
    formatter does not apply, because lines have a fixed form.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Store the record if it comes from the body of a step."""
        lines = current_lines.get()
        if lines is None:
            return
        try:
            level = storable_text(record.levelname, _MAX_NAME)
            name = storable_text(record.name, _MAX_NAME)
            lines.add(level, name, _message(record))
        except Exception:  # noqa: BLE001  # logging must not raise into the caller
            self.handleError(record)


class _Printable(logging.Filter):
    """Replace errors that cannot be printed, and add tracebacks of step bodies.

    After a replay, the error of a failed step has no traceback of the body.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the error of a record if needed; accept every record."""
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            like = loggable(error)
            if like is not error:
                record.exc_info = (type(like), like, like.__traceback__)
            elif has_recorded_traceback(error):
                record.exc_text = traceback_text(error)
        return True


_printable = _Printable()


def guard() -> None:
    """Add the filter to the package's loggers, so that logging an error never fails."""
    for name in ("durable_jobs", "durable_jobs.run"):
        logging.getLogger(name).addFilter(_printable)


def _message(record: logging.LogRecord) -> str:
    """Return the message, followed by the type and the message of its error."""
    text = record.getMessage()
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        what = last_lines(error, MAX_MESSAGE // 2)
        text = f"{text[: MAX_MESSAGE - 1 - len(what)]}\n{what}"
    return storable_text(text[: MAX_MESSAGE + 1], MAX_MESSAGE)
