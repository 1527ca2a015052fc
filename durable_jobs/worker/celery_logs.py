"""Celery's own log lines about wake-up messages and ticks, at the level DEBUG.

Celery logs each task twice at INFO: on arrival and at its end. A tick a second would
drown the lines of the project's own tasks. Failures keep their level.
"""

from __future__ import annotations

import logging

#: The loggers that tell of tasks which arrive, succeed, or are due in beat.
LOGGERS = ("celery.worker.strategy", "celery.app.trace", "celery.beat")
#: How the names of the messages of this package begin.
OWN = ("durable_jobs.work", "durable_jobs.tick")


class Quiet(logging.Filter):
    """Turns an INFO record about one of our tasks into a DEBUG record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        if record.levelno != logging.INFO or not _is_own(record.args):
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def _is_own(args: object) -> bool:
    if isinstance(args, dict):
        args = (args.get("name"),)
    return isinstance(args, tuple) and any(
        isinstance(value, str) and value.startswith(OWN) for value in args
    )


_quiet = Quiet()


def install() -> None:
    """Add the filter; a second call changes nothing."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_quiet)
