"""Write the outcome of an attempt: complete, fail, retry, suspend or pause the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from durable_jobs import clock, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.flow_control import BatchFailures
from durable_jobs.engine import batch_failures, release_run
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.errors import describe_error, exc_info
from durable_jobs.engine.retries import next_attempt, raised_by
from durable_jobs.exceptions import ConfigurationError, LimitExceeded, PayloadError
from durable_jobs.lifecycle import finish, run_log
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, run_changes, runs, steps
from durable_jobs.store.leases import Lease
from durable_jobs.store.runs import End

logger = logging.getLogger("durable_jobs")


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned ``value``."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised ``error``."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Suspended:
    """The function waits for a step."""


AttemptOutcome = Returned | Raised | Suspended


def settle(state: AttemptState, outcome: AttemptOutcome, *, standalone: bool) -> None:
    """Record the outcome of an attempt: complete, fail, retry or suspend the run."""
    if state.history.divergence is not None:
        _pause_run(state.run, state.lease, state.history.divergence.message)
    elif isinstance(outcome, Suspended):
        _suspend(state)
    elif isinstance(outcome, Returned):
        _complete(state, outcome.value, standalone=standalone)
    else:
        _fail(state, outcome.error)


def _suspend(state: AttemptState) -> None:
    now = clock.now()
    # A paused run is due at once, in case it was resumed during the attempt.
    at_once = state.requeue or state.move_to_queue or state.recorder.paused
    due_at = now if at_once else None
    queue = state.move_to_queue or state.function.queue
    status = runs.suspend(
        state.lease,
        records=state.recorder.deferred_records,
        suspended=state.recorder.suspended_steps,
        queue=queue,
        due_at=due_at,
        failure_count=0,
        release_slots=state.holds_slots,
    )
    release_run.announce_status(state.run, status)
    for check in state.recorder.post_commit_checks:
        check()
    current_status = db.rows(Run).filter(pk=state.run.pk)
    if state.recorder.post_commit_checks:
        status = current_status.values_list("status", flat=True).get()
    if status == RunStatus.QUEUED:
        notifier.notify(queue)
    _notify_later(state)


def _notify_later(state: AttemptState) -> None:
    """Schedule a wake-up message for the next due wait. The tick is the fallback."""
    times = [
        wait.due_at
        for item in state.recorder.suspended_steps
        for wait in item.waits
        if wait.due_at is not None
    ]
    if times:
        notifier.notify_at(min(times), state.function.queue)


def _complete(state: AttemptState, value: Any, *, standalone: bool) -> None:
    run = state.run
    reason, in_transaction = "", None
    if isinstance(value, BatchFailures):
        value, reason, in_transaction = batch_failures.partial_failure(state, value)
    try:
        output = serialization.dumps(
            value,
            what=f"the output of run {run.pk} of {run.function}",
            limit=settings.MAX_STEP_BYTES,
            limit_setting="MAX_STEP_BYTES",
        )
    except (PayloadError, LimitExceeded) as refused:
        _end_failed(state, refused)
        return
    unmet = state.history.unreplayed()
    if unmet:
        names = ", ".join(repr(step_record.name) for step_record in unmet[:10])
        logger.warning(
            "Run %s of %s ended without reaching %d recorded steps: %s.",
            run.pk,
            run.function,
            len(unmet),
            names,
        )
    if state.recorder.deferred_records:
        steps.record(state.lease, state.recorder.deferred_records)
    end = End(RunStatus.COMPLETED, output=output, reason=reason)
    _end(state, end, standalone=standalone, in_transaction=in_transaction)


def _fail(state: AttemptState, error: BaseException) -> None:
    """Schedule another attempt of the function, or end the run as failed."""
    run, function = state.run, state.function
    # Progress since the last failure restores all retries.
    failures = 0 if state.recorder.progress else run.attempt
    try:
        due = next_attempt(error, failures, function.retries, function.backoff)
    except ConfigurationError as wrong:  # raised by your project's backoff
        _end_failed(state, wrong)
        return
    if due is None:
        _end_failed(state, error)
        return
    error_record, now = describe_error(error), clock.now()
    with transaction.atomic(using=db.alias()):
        status = runs.suspend(
            state.lease,
            records=state.recorder.deferred_records,
            suspended=state.recorder.suspended_steps,
            queue=function.queue,
            due_at=due,
            failure_count=failures + 1,
            release_slots=state.holds_slots,
        )
        steps.record_failed_attempt(run.pk, "", failures, error_record, None, now)
        run_log.attempt_failed(run, error_record, error, failures + 1, due_at=due)
    release_run.announce_status(run, status)
    notifier.notify_at(due, function.queue)


def _end_failed(state: AttemptState, error: BaseException) -> None:
    error_record = describe_error(error)
    error_record.pop("class", None)
    error_record.pop("args", None)
    name, key = raised_by(state, error_record)
    if name:
        error_record["step_name"] = name
    reason, in_transaction = "", None
    halves = batch_failures.split(state)
    if halves is not None:
        reason, in_transaction = halves
    end = End(
        RunStatus.FAILED,
        error=error_record,
        reason=reason,
        exc_info=exc_info(error),
        step=(name, key),
    )
    _end(
        state,
        end,
        standalone=False,
        in_transaction=in_transaction,
        start_handler=halves is None,
    )


def _end(
    state: AttemptState,
    end: End,
    *,
    standalone: bool,
    in_transaction: batch_failures.InTransaction | None = None,
    start_handler: bool = True,
) -> None:
    """End the run. ``in_transaction`` is called in the same transaction.

    Without ``start_handler``, other runs continue the work of this one.
    """
    has_waits = state.function.cancel_on or _has_timeouts(state)
    done = finish.finish(
        state.run,
        end,
        state.lease,
        standalone=standalone and not has_waits and in_transaction is None,
        in_transaction=in_transaction,
        start_handler=start_handler,
    )
    if not done:
        # The run is paused, or its lease is lost. A paused run ends after it is
        # resumed: its function is called again and returns.
        release_run.release_paused(state.run, state.lease)


def _has_timeouts(state: AttemptState) -> bool:
    timeouts = state.function.timeouts
    return timeouts.start is not None or timeouts.finish is not None


def _pause_run(run: Run, lease: Lease, reason: str) -> None:
    if run_changes.pause(run.pk, reason, lease):
        run_log.paused(run, reason)
        release_run.announce_status(run, RunStatus.PAUSED, reason)
    else:  # already paused; the next attempt finds the reason again
        release_run.release_paused(run, lease)
