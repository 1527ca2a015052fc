"""Requeue a run after a database error of the engine, and count these errors.

Such an error is no failure of the function. A run that meets one in each attempt still
has to end: it fails after ``MAX_DATABASE_ERRORS``.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import Error as DatabaseError

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.engine.errors import describe_error
from durable_jobs.engine.suspend import DatabaseFailed
from durable_jobs.lifecycle import finish
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, runs
from durable_jobs.store.leases import Lease, LeaseLost
from durable_jobs.store.runs import End

logger = logging.getLogger("durable_jobs")

#: Pause of a run after a database error; doubled for each further one in a row.
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=5)


def requeue_after_db_error(run: Run, error: BaseException, *, progress: bool) -> None:
    """Requeue the run, or leave it to its lease if the database is down.

    Consecutive attempts without a recorded step are counted. The run fails after
    ``MAX_DATABASE_ERRORS`` of them. Their pauses add up to an hour, and no run is
    claimed while the database is down, so an outage does not use up the count.
    """
    count = 1 if progress else run.database_errors + 1
    pause = min(FIRST_PAUSE * 2 ** min(count - 1, 10), LONGEST_PAUSE)
    assert run.lease_token is not None, "the run was claimed"
    lease = Lease(run.pk, run.lease_token)
    try:
        connection = db.connection()
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
        if count >= settings.MAX_DATABASE_ERRORS:
            _fail_run(run, lease, error, count)
            return
        runs.suspend(
            lease,
            queue=run.queue,
            due_at=clock.now() + pause,
            release_slots=run.requeue_to is not None,
            database_errors=count,
        )
    except (DatabaseError, LeaseLost):
        logger.info("Run %s is requeued when its lease expires.", run.pk)


def _fail_run(run: Run, lease: Lease, error: BaseException, count: int) -> None:
    cause = error.__cause__ if isinstance(error, DatabaseFailed) else error
    error_record = describe_error(cause or error)
    reason = (
        f"{count} attempts in a row met a database error (setting "
        f"MAX_DATABASE_ERRORS). The last one: {error_record['message']}"
    )
    ended = {
        "type": error_record["type"],
        "message": reason,
        "traceback": error_record.get("traceback", ""),
    }
    finish.finish(run, End(RunStatus.FAILED, error=ended, reason=reason), lease)
