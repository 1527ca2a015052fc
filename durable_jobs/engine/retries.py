"""Decide what follows a failed attempt: another attempt later, or the failure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from durable_jobs import clock
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.effects import BodyOutcome, Plan, StepCall
from durable_jobs.engine.errors import (
    FINAL,
    ErrorRecord,
    describe_error,
    exc_info,
    original_of,
)
from durable_jobs.engine.retry_after import moment_of
from durable_jobs.engine.scope import entered
from durable_jobs.engine.suspend import Suspend
from durable_jobs.engine.time_limits import BodyTimeout
from durable_jobs.exceptions import (
    LimitExceeded,
    PayloadError,
    RetryAfterError,
    StepError,
    StepTimeout,
)
from durable_jobs.lifecycle import run_log
from durable_jobs.models import WaitKind
from durable_jobs.retry import Backoff
from durable_jobs.statuses import StepStatus
from durable_jobs.store import steps
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.waits import NewWait


def next_attempt(
    error: BaseException,
    failure_count: int,
    retries: int,
    backoff: Backoff,
    retry_on: Any = None,
) -> datetime | None:
    """Return when the next attempt is due, or None.

    ``failure_count``: how many attempts have failed before this one.
    """
    # By type: isinstance() would call code of the error's class.
    kind: type[BaseException] = type(error)
    if failure_count >= retries or issubclass(kind, FINAL):
        return None
    if issubclass(kind, RetryAfterError):
        moment = moment_of(cast(RetryAfterError, error))
        if moment is not None:
            return moment
    if issubclass(kind, BodyTimeout):
        kind = StepTimeout
    if retry_on is not None and not issubclass(kind, retry_on):
        return None
    return clock.now() + backoff.delay(failure_count, error)


def describe_body_error(error: BaseException) -> ErrorRecord:
    """Return the record of an error that ended a body."""
    error_record = describe_error(error)
    kind = type(error)
    if issubclass(kind, StepError):
        # A branch that failed with the error of one of its steps keeps that error type.
        error_record["raise"] = kind.__name__
        if error.__cause__ is not None:
            error_record |= original_of(error.__cause__)
    if issubclass(kind, BodyTimeout):
        error_record |= {"type": "StepTimeout", "raise": "StepTimeout"}
        error_record.pop("class", None)
        error_record.pop("args", None)
    return error_record


def raised_by(state: AttemptState, error_record: ErrorRecord) -> tuple[str, str]:
    """Return the id and the key of the step whose error ended the function."""
    step_record = state.history.step_records.get(error_record.get("step", ""))
    return ("", "") if step_record is None else (step_record.name, step_record.key)


def record_outcome(
    step: StepCall,
    outcome: BodyOutcome,
    started: datetime,
    *,
    retries: int | None = None,
    backoff: Backoff | None = None,
    retry_on: Any = None,
) -> Plan:
    """Record the outcome of a body: its result, its retry or its failure."""
    error = outcome.error
    if error is None:
        try:
            return (yield from step.complete(outcome.value, started))
        except (PayloadError, LimitExceeded) as refused:
            raise (yield from fail_step(step, refused, started)) from None
    with entered(step.record_scope):
        suspension = schedule_retry(step, error, started, retries, backoff, retry_on)
    if suspension is None:
        raise (yield from fail_step(step, error, started))
    raise suspension


def fail_step(step: StepCall, error: BaseException, started: datetime | None) -> Plan:
    """Record and log the final failure of a step; return the error to raise."""
    error_record = describe_body_error(error)
    raised = yield from step.fail(error_record, started)
    if raised.__cause__ is not None:  # rebuilt, so it lacks the frames
        BaseException.with_traceback(raised.__cause__, exc_info(error)[2])
    if not issubclass(type(error), StepError):  # the failed step has logged it
        log_failure(step, error_record, error)
    return raised


def log_failure(
    step: StepCall,
    error_record: ErrorRecord,
    error: BaseException,
    *,
    failure_count: int | None = None,
    due_at: datetime | None = None,
) -> None:
    """Log a failed attempt of a step, after ``failure_count`` others."""
    if failure_count is None:
        failure_count = step.failure_count
    run_log.attempt_failed(
        step.state.run,
        error_record,
        error,
        failure_count + 1,
        step=(step.name, step.key),
        due_at=due_at,
    )


def schedule_retry(
    step: StepCall,
    error: BaseException,
    started: datetime,
    retries: int | None = None,
    backoff: Backoff | None = None,
    retry_on: Any = None,
    *,
    keep_waits: bool = False,
) -> Suspend | None:
    """Suspend a step until its next attempt.

    Return the exception to raise, or None without a retry.
    """
    function = step.state.function
    failures = step.failure_count
    due = next_attempt(
        error,
        failures,
        function.retries if retries is None else retries,
        function.backoff if backoff is None else backoff,
        retry_on,
    )
    if due is None:
        return None
    error_record = describe_body_error(error)
    step_record = step.record_as(
        StepStatus.SCHEDULED,
        attempt=failures + 1,
        error=error_record,
        due_at=due,
        started_at=started,
    )
    run_id, ended, logs = step.state.run.pk, clock.now(), step.take_logs()

    def in_transaction() -> None:
        steps.record_failed_attempt(
            run_id, step_record.key, failures, error_record, started, ended, logs
        )
        log_failure(step, error_record, error, failure_count=failures, due_at=due)

    item = SuspendedStep(
        step_record,
        [NewWait(kind=WaitKind.RETRY, due_at=due)],
        replaces_waits=step.step_record is not None and not keep_waits,
        effect=in_transaction,
    )
    return step.state.recorder.suspend_step(item, at_once=step.scope.concurrent)


def waits_for_retry(step: StepCall) -> bool:
    """Return whether a step still waits for its next attempt."""
    step_record = step.step_record
    return (
        step_record is not None
        and step_record.status == StepStatus.SCHEDULED
        and step_record.due_at is not None
        and step_record.due_at > clock.now()
    )
