"""``run`` and ``atomic``: steps that call a body and record its result."""

from __future__ import annotations

import functools
from collections.abc import Awaitable

from asgiref.sync import iscoroutinefunction
from django.db import connections, transaction

from durable_jobs import clock, serialization
from durable_jobs.control_flow import reraise_control
from durable_jobs.definitions import operations as ops
from durable_jobs.engine.awaitables import awaitable_error
from durable_jobs.engine.body_calls import stub_or_body
from durable_jobs.engine.effects import BodyOutcome, CallBody, Plan, StepCall
from durable_jobs.engine.retries import (
    fail_step,
    record_outcome,
    schedule_retry,
    waits_for_retry,
)
from durable_jobs.engine.suspend import BranchDiscarded, Suspend, engine_writes
from durable_jobs.engine.time_limits import interruptible
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.failpoints import failpoint
from durable_jobs.logs import capturing
from durable_jobs.retry import as_backoff
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, steps
from durable_jobs.store.connection_state import AtomicGuard
from durable_jobs.store.steps import StepRecord


def run(step: StepCall, operation: ops.RunStep) -> Plan:
    """Call the body and record its result."""
    step.state.check_may_start(operation.queue)
    if waits_for_retry(step):
        raise Suspend
    started = clock.now()
    step.set_input(operation.args, operation.kwargs)
    step.capture_logs(started)
    if operation.at_most_once:
        yield from _mark_started(step, operation)
    failpoint("step.before", operation.id)
    outcome = yield CallBody(
        fn=operation.fn,
        name=operation.id,
        failure_count=step.failure_count,
        args=operation.args,
        kwargs=operation.kwargs,
        timeout=operation.limit,
        lines=step.lines,
    )
    failpoint("step.body", operation.id)
    result = yield from record_outcome(
        step,
        outcome,
        started,
        retries=0 if operation.at_most_once else operation.retries,
        backoff=None if operation.backoff is None else as_backoff(operation.backoff),
        retry_on=operation.retry_on,
    )
    failpoint("step.after", operation.id)
    step.state.suspend_if_always()
    return result


def _mark_started(step: StepCall, operation: ops.RunStep) -> Plan:
    """Record that the only attempt starts; fail the step if it was interrupted."""
    if step.step_record is not None and step.step_record.status == StepStatus.RUNNING:
        message = (
            f"Step {operation.id!r} may run at most once and was interrupted. It is "
            f"unknown whether its body took effect."
        )
        begun = step.step_record.started_at
        raise (yield from step.fail_with("StepInterrupted", message, begun))
    step_record = step.record_as(StepStatus.RUNNING, started_at=clock.now())
    yield from step.write(step_record)


def atomic(step: StepCall, operation: ops.Atomic) -> Plan:
    """Call the body and record its result in one transaction."""
    _check_atomic(operation)
    step.state.check_may_start()
    if waits_for_retry(step):
        raise Suspend
    started = clock.now()
    step.set_input(operation.args, operation.kwargs)
    step.capture_logs(started)
    failpoint("step.before", operation.id)
    blank = step.record_as(StepStatus.COMPLETED, started_at=started, due_at=None)
    outcome: BodyOutcome = yield CallBody(
        fn=functools.partial(_call_and_record, step, operation, blank),
        name=operation.id,
        failure_count=blank.attempt,
        is_engine_code=True,
    )
    if outcome.error is not None:
        error = outcome.error
        if type(error) is _RolledBack:
            error = error.error
        suspend = schedule_retry(step, error, started)
        raise suspend or (yield from fail_step(step, error, started))
    step_record, status = outcome.value
    step.state.recorder.add_written(step_record, status)
    failpoint("step.after", operation.id)
    step.state.suspend_if_always()
    return serialization.loads(step_record.output)


def _call_and_record(
    step: StepCall, operation: ops.Atomic, blank: StepRecord
) -> tuple[StepRecord, str]:
    """Lock the run, call the body and record the result, in one commit.

    The lock comes first, so an attempt without the lease writes nothing. A database
    error around the body, even in the commit, is no failure of the body: the next
    attempt reads what was committed.
    """
    with engine_writes():
        with transaction.atomic(using=db.alias()):
            status = steps.fence(step.state.lease)
            failpoint("record.locked")
            if not step.scope.alive:
                raise BranchDiscarded  # under the lock, the decision is final
            text = _call(step, operation)
            logs = step.take_logs()
            step_record = blank.but(
                output=text, error=None, logs=logs, ended_at=clock.now()
            )
            steps.write(step.state.run.pk, [step_record])
            failpoint("record.written", operation.id)
        failpoint("record.committed", operation.id)
    return step_record, status


class _RolledBack(Exception):
    """The body failed, so its transaction is rolled back."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _call(step: StepCall, operation: ops.Atomic) -> str:
    """Call the body and return its result as a JSON string."""
    fn = stub_or_body(operation.id, operation.fn)
    what = f"The body of step {operation.id!r}"
    guard = AtomicGuard(db.connection(), what, operation.using)
    try:
        with capturing(step.lines):  # not the logs of the engine's own statements
            value = interruptible(operation.id, fn, operation.args, operation.kwargs)
        guard_error = guard.end(what)
        if guard_error is not None:
            raise guard_error
        if isinstance(value, Awaitable):
            raise awaitable_error(value, what)
        text = step.state.history.encode(value, operation.id)
    except BaseException as error:
        reraise_control(error)
        raise _RolledBack(error) from error
    finally:
        guard.leave()
    failpoint("step.body", operation.id)
    return text


def _check_atomic(operation: ops.Atomic) -> None:
    if operation.using is not None and operation.using not in connections:
        msg = (
            f"Step {operation.id!r}: expected using to be an alias in DATABASES, got "
            f"{operation.using!r}."
        )
        raise ConfigurationError(msg)
    if iscoroutinefunction(operation.fn):
        msg = f"Step {operation.id!r}: a transaction needs def, not async def."
        raise ConfigurationError(msg)
