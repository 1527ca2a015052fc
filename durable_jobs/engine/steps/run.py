"""``run`` and ``atomic``: steps that call something and remember what it gave."""

from __future__ import annotations

import functools
from collections.abc import Awaitable

from asgiref.sync import iscoroutinefunction
from django.db import connections, transaction

from durable_jobs import clock, serialization
from durable_jobs.control_flow import let_pass
from durable_jobs.definitions import operations as ops
from durable_jobs.engine.awaitables import awaitable_error
from durable_jobs.engine.body_calls import stub_or_body
from durable_jobs.engine.effects import BodyOutcome, CallBody, Plan, StepCall
from durable_jobs.engine.retries import give_up, not_due, schedule, settle
from durable_jobs.engine.suspend import BranchDiscarded, Suspend, engine_writes
from durable_jobs.engine.time_limits import interruptible
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.failpoints import failpoint
from durable_jobs.logs import kept
from durable_jobs.retry import as_backoff
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, steps
from durable_jobs.store.connection_state import AtomicGuard
from durable_jobs.store.steps import StepRecord


def run(step: StepCall, operation: ops.RunStep) -> Plan:
    """Call the body and record its result."""
    step.state.begin(operation.id, operation.queue)
    if not_due(step):
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
        attempt=step.memo.attempt if step.memo is not None else 0,
        args=operation.args,
        kwargs=operation.kwargs,
        timeout=operation.limit,
        lines=step.lines,
    )
    failpoint("step.body", operation.id)
    result = yield from settle(
        step,
        outcome,
        started,
        retries=0 if operation.at_most_once else operation.retries,
        backoff=None if operation.backoff is None else as_backoff(operation.backoff),
        retry_on=operation.retry_on,
    )
    failpoint("step.after", operation.id)
    step.state.go_on()
    return result


def _mark_started(step: StepCall, operation: ops.RunStep) -> Plan:
    """Record that the only attempt begins; one that had begun was interrupted."""
    if step.memo is not None and step.memo.status == StepStatus.RUNNING:
        message = (
            f"Step {operation.id!r} may run at most once, and was interrupted: whether "
            f"its body had its effect is not known."
        )
        begun = step.memo.started_at
        raise (yield from step.fail_with("StepInterrupted", message, begun))
    memo = step.memo_as(StepStatus.RUNNING, started_at=clock.now())
    yield from step.write(memo)


def atomic(step: StepCall, operation: ops.Atomic) -> Plan:
    """Call the body and record its result in one transaction."""
    _check_atomic(operation)
    step.state.begin(operation.id)
    if not_due(step):
        raise Suspend
    started = clock.now()
    step.set_input(operation.args, operation.kwargs)
    step.capture_logs(started)
    failpoint("step.before", operation.id)
    blank = step.memo_as(StepStatus.COMPLETED, started_at=started, due_at=None)
    outcome: BodyOutcome = yield CallBody(
        fn=functools.partial(_together, step, operation, blank),
        name=operation.id,
        attempt=blank.attempt,
        own=True,
    )
    if outcome.error is not None:
        error = outcome.error
        if type(error) is _Undone:
            error = error.error
        suspend = schedule(step, error, started)
        raise suspend or (yield from give_up(step, error, started))
    memo, status = outcome.value
    step.state.recorder.add_written(memo, status)
    failpoint("step.after", operation.id)
    step.state.go_on()
    return serialization.loads(memo.output)


def _together(
    step: StepCall, operation: ops.Atomic, blank: StepRecord
) -> tuple[StepRecord, str]:
    """Lock the run, call the body, record: one commit, or nothing of it.

    The lock comes first, so that whoever lost the lease writes nothing. A database that
    fails around the body, be it in the commit itself, is no failure of the body: only
    the next attempt can tell what was committed.
    """
    with engine_writes():
        with transaction.atomic(using=db.alias()):
            status = steps.fence(step.state.lease)
            failpoint("record.locked")
            if not step.scope.alive:
                raise BranchDiscarded  # who holds the lock sees what the others decided
            text = _called(step, operation)
            logs = step.take_logs()
            memo = blank.but(output=text, error=None, logs=logs, ended_at=clock.now())
            steps.write(step.state.run.pk, [memo])
            failpoint("record.written", operation.id)
        failpoint("record.committed", operation.id)
    return memo, status


class _Undone(Exception):
    """The body failed, and so its transaction is undone."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


def _called(step: StepCall, operation: ops.Atomic) -> str:
    """Call the body and return its result as JSON text."""
    fn = stub_or_body(operation.id, operation.fn)
    whose = f"The body of step {operation.id!r}"
    guard = AtomicGuard(db.connection(), whose, operation.using)
    try:
        with kept(step.lines):  # and not what the engine's own statements log
            value = interruptible(operation.id, fn, operation.args, operation.kwargs)
        trouble = guard.end(whose)
        if trouble is not None:
            raise trouble
        if isinstance(value, Awaitable):
            raise awaitable_error(value, whose)
        text = step.state.history.encode(value, operation.id)
    except BaseException as error:
        let_pass(error)
        raise _Undone(error) from error
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
