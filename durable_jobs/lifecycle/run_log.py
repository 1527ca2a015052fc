"""Log lines about runs: failed attempts, failed runs, lost workers, pauses.

They are written to the logger ``durable_jobs.run`` after the change has committed, with
the fields of ``durable_jobs.logs.FIELDS``. They contain no payload.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.db import Error as DatabaseError

from durable_jobs import logs
from durable_jobs.control_flow import traceback_of
from durable_jobs.error_text import ErrorRecord
from durable_jobs.models import Run, Subject
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db
from durable_jobs.store.runs import INVOKE, End

logger = logging.getLogger("durable_jobs.run")

#: Objects of one run that a log line names.
SUBJECTS = 5


Watcher = Callable[[BaseException], None]

_watcher: Watcher | None = None


def watch(watcher: Watcher | None) -> Watcher | None:
    """Call ``watcher`` with the error of each failed attempt; return the previous."""
    global _watcher
    previous, _watcher = _watcher, watcher
    return previous


def attempt_failed(
    run: Run,
    error_record: ErrorRecord,
    error: BaseException | None,
    attempt_number: int,
    *,
    step: tuple[str, str] = ("", ""),
    due_at: datetime | None = None,
) -> None:
    """Log the failed attempt of a step, or of the function without ``step``.

    ``attempt_number`` counts from 1. ``step`` is an id and a key. ``due_at`` is the
    time of the next attempt.
    """
    if _watcher is not None and error is not None:
        _watcher(error)
    if not logger.isEnabledFor(logging.WARNING):
        return
    name, key = step
    what = f"step {name!r}" if name else "the function"
    then = f"next attempt at {due_at:%Y-%m-%d %H:%M:%S %Z}" if due_at else "no retry"

    def log() -> None:
        # Without a retry the run fails too, and its log line names the subject.
        logger.warning(
            "Run %s of %s: %s failed in attempt %d (%s): %s",
            run.pk,
            run.function,
            what,
            attempt_number,
            then,
            _short(error_record),
            extra=logs.fields(
                run,
                step=name,
                step_key=key,
                attempt=attempt_number,
                subject=subject(run) if due_at else _known_subject(run),
            ),
            exc_info=_printed(error),
        )

    if due_at is None:
        log()  # perhaps in an event loop, where queries are not allowed
    else:
        db.after_commit(log)


def _printed(error: BaseException | None) -> tuple[Any, ...] | None:
    if error is None or not logger.isEnabledFor(logging.DEBUG):
        return None
    return (type(error), error, traceback_of(error))


def ended(run: Run, end: End) -> None:
    """Log how a run ended: ERROR if it failed, INFO if it was cancelled or skipped.

    The failure of an invoked run is a WARNING: its parent may handle the error.
    """
    if end.status == RunStatus.COMPLETED:
        return
    if _watcher is not None and end.exc_info and end.exc_info[1] is not None:
        _watcher(end.exc_info[1])
    level = logging.INFO
    if end.status == RunStatus.FAILED:
        invoked = run.parent_id and run.parent_relation == INVOKE
        level = logging.WARNING if invoked else logging.ERROR
    if logger.isEnabledFor(level):
        db.after_commit(lambda: _ended(level, run, end))


def _ended(level: int, run: Run, end: End) -> None:
    error = end.error or {}
    name, key = end.step
    what = _short(error) if error else logs.one_line(end.reason, "")
    logger.log(
        level,
        "Run %s of %s %s%s",
        run.pk,
        run.function,
        "was skipped" if end.status == RunStatus.SKIPPED else _ENDS[end.status],
        f": {what}" if what else ".",
        extra=logs.fields(
            run,
            step=name,
            step_key=key,
            subject=subject(run) if level > logging.INFO else _known_subject(run),
        ),
        exc_info=end.exc_info,
    )


_ENDS = {RunStatus.FAILED: "failed", RunStatus.CANCELLED: "was cancelled"}


def paused(run: Run, reason: str) -> None:
    """Log that the engine paused a run, which needs a person to resume it."""
    _warn(run, "Run %s of %s is paused: %s", run.pk, run.function, reason)


def orphaned(run: Run, what: str) -> None:
    """Log that a run is queued again because its worker has died."""
    _warn(run, "Run %s of %s is queued again: %s", run.pk, run.function, what)


def _warn(run: Run, message: str, *args: object) -> None:
    db.after_commit(lambda: logger.warning(message, *args, extra=logs.fields(run)))


def subject(run: Run) -> str:
    """Return the objects that a run is about, as ``"shop.order 7"``."""
    known = _known_subject(run)
    if known or "_subject" in run.__dict__:
        return known
    rows = db.rows(Subject).filter(run_id=run.pk).order_by("pk")
    try:
        found = ", ".join(str(one) for one in rows[:SUBJECTS])
    except DatabaseError:
        return ""
    run.__dict__["_subject"] = found
    return found


def _known_subject(run: Run) -> str:
    return str(run.__dict__.get("_subject", ""))


def _short(error_record: ErrorRecord) -> str:
    return logs.one_line(
        str(error_record.get("type", "")), error_record.get("message", "")
    )
