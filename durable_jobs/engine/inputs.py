"""Decode what an attempt needs before the function is called: the event of the run.

A payload may refer to something that this process cannot load now: a class of a newer
release, a column before its migration, a second database that is down. Only that run
waits, with growing pauses. It fails if the error lasts.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from django.db import transaction

from durable_jobs import clock, notifier
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.engine.context import PrefetchedContext
from durable_jobs.engine.errors import describe_error
from durable_jobs.engine.newer_version import check_user
from durable_jobs.engine.suspend import NewerVersionNeeded
from durable_jobs.lifecycle import finish
from durable_jobs.models import Run
from durable_jobs.models.fields import payload
from durable_jobs.serialization import UnknownTag
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, runs, steps
from durable_jobs.store.leases import Lease
from durable_jobs.store.runs import End

logger = logging.getLogger("durable_jobs")

#: Attempts that a run has to decode its input, even with fewer ``retries``.
MIN_TRIES = 10
FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(minutes=10)


class Unreadable(Exception):
    """The input of a run cannot be decoded; ``__cause__`` is the error."""


def read(run: Run, function: Function) -> PrefetchedContext | None:
    """Decode the input of a run; return what an async function cannot query itself.

    Raise ``Unreadable``, ``NewerVersionNeeded``, or the database error if the runs' own
    database is down.
    """
    check_user(run)
    try:
        payload(run, "data")
        return PrefetchedContext.of(run) if function.is_async else None
    except UnknownTag as unknown:
        raise NewerVersionNeeded(f"its input: {unknown.message}") from unknown
    except Exception as error:
        if db.is_outage(error):
            raise
        raise Unreadable from error


def postpone(run: Run, unread: Unreadable) -> None:
    """Requeue the run after a pause, or fail it after too many attempts."""
    function, error = registry.get(run.function), unread.__cause__ or unread
    assert run.lease_token is not None, "the run was claimed"
    lease, error_record = Lease(run.pk, run.lease_token), describe_error(error)
    now = clock.now()
    if run.attempt >= max(MIN_TRIES, function.retries):
        finish.finish(run, End(RunStatus.FAILED, error=error_record), lease)
        return
    due = now + min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(run.attempt, 20)))
    with transaction.atomic(using=db.alias()):
        runs.suspend(
            lease,
            queue=function.queue,
            due_at=due,
            failure_count=run.attempt + 1,
            release_slots=run.requeue_to is not None,
        )
        steps.record_failed_attempt(run.pk, "", run.attempt, error_record, None, now)
    logger.warning(
        "The input of run %s of %s cannot be decoded; next attempt at %s: %s",
        run.pk,
        run.function,
        due.isoformat(),
        error_record["message"],
    )
    notifier.notify_at(due, function.queue)
