"""Put a run back after a database error, and count these errors.

A database that fails in a write of the engine's own is no failure of the function. But
an attempt that meets such an error each time must end at some point.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import Error as DatabaseError

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.engine.errors import describe
from durable_jobs.engine.suspend import DatabaseFailed
from durable_jobs.lifecycle import finish
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, runs
from durable_jobs.store.leases import Lease, LeaseLost
from durable_jobs.store.runs import End

logger = logging.getLogger("durable_jobs")

#: How long a run rests after a database error: twice as long each time in a row.
PAUSE_AFTER_TROUBLE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)


def give_up(run: Run, error: BaseException, *, progress: bool) -> None:
    """Put the run back in its queue, if the database lets us.

    Attempts that end like this in a row, without a step recorded, are counted: the run
    fails after ``MAX_DATABASE_ERRORS`` of them. The pauses between them grow to an
    hour in all, and a database that is away lets nothing be claimed: an outage does
    not use them up.
    """
    count = 1 if progress else run.database_errors + 1
    pause = min(PAUSE_AFTER_TROUBLE * 2 ** min(count - 1, 10), LONGEST_PAUSE)
    assert run.lease_token is not None, "the run was claimed"
    lease = Lease(run.pk, run.lease_token)
    try:
        connection = db.connection()
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        if count >= settings.MAX_DATABASE_ERRORS:
            _fail_of_database(run, lease, error, count)
            return
        runs.suspend(
            lease,
            queue=run.queue,
            due_at=clock.now() + pause,
            holds_slots=run.requeue_to is not None,
            database_errors=count,
        )
    except (DatabaseError, LeaseLost):
        logger.info("Run %s is left to its lease.", run.pk)


def _fail_of_database(run: Run, lease: Lease, error: BaseException, count: int) -> None:
    cause = error.__cause__ if isinstance(error, DatabaseFailed) else error
    record = describe(cause or error)
    reason = (
        f"{count} attempts in a row met a database error (setting "
        f"MAX_DATABASE_ERRORS). The last one: {record['message']}"
    )
    ended = {
        "type": record["type"],
        "message": reason,
        "traceback": record.get("traceback", ""),
    }
    finish.finish(run, End(RunStatus.FAILED, error=ended, reason=reason), lease)
