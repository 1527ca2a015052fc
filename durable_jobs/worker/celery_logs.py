"""Lower Celery's own log lines about wake-up messages and ticks to DEBUG.

Celery logs each task twice at INFO: on arrival and at its end. With one tick per
second, these lines would hide those of the project's own tasks. Failures keep their
level.
"""

from __future__ import annotations

import logging

#: The loggers that report tasks that arrive, succeed, or are due in beat.
LOGGERS = ("celery.worker.strategy", "celery.app.trace", "celery.beat")
#: Prefixes of the task names of this package.
PACKAGE_TASKS = ("durable_jobs.work", "durable_jobs.tick")


class PackageTasksFilter(logging.Filter):
    """Turns an INFO record about a task of this package into a DEBUG record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        if record.levelno != logging.INFO or not _names_package_task(record.args):
            return True
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger(record.name).isEnabledFor(logging.DEBUG)


def _names_package_task(args: object) -> bool:
    if isinstance(args, dict):
        args = (args.get("name"),)
    return isinstance(args, tuple) and any(
        isinstance(value, str) and value.startswith(PACKAGE_TASKS) for value in args
    )


_filter = PackageTasksFilter()


def install() -> None:
    """Add the filter to Celery's loggers. A second call has no effect."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_filter)
