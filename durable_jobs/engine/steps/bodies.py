"""``run`` and ``atomic``: steps that call something and remember what it gave."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.db import transaction

from durable_jobs import clock, serialization
from durable_jobs.definitions import operations as ops
from durable_jobs.engine.bodies import stubbed
from durable_jobs.engine.frames import Call, Frame, Outcome, Plan
from durable_jobs.engine.retrying import not_due, record_of, schedule, settle
from durable_jobs.engine.suspend import BranchDropped, StoreFailed, Suspend
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.failpoints import hit
from durable_jobs.retry import as_backoff
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, steps
from durable_jobs.store.steps import Memo


def run(frame: Frame, operation: ops.Run) -> Plan:
    """Call the body and record its result."""
    frame.session.begin(operation.id, operation.queue)
    if not_due(frame):
        raise Suspend
    started = clock.now()
    if operation.at_most_once:
        _mark_started(frame, operation)
    hit("step.before", operation.id)
    outcome = yield Call(
        fn=operation.fn,
        name=operation.id,
        attempt=frame.memo.attempt if frame.memo is not None else 0,
        args=operation.args,
        kwargs=operation.kwargs,
        timeout=operation.limit,
    )
    hit("step.body", operation.id)
    result = settle(
        frame,
        outcome,
        started,
        retries=0 if operation.at_most_once else operation.retries,
        backoff=None if operation.backoff is None else as_backoff(operation.backoff),
        retry_on=operation.retry_on,
    )
    hit("step.after", operation.id)
    frame.session.go_on()
    return result


def _mark_started(frame: Frame, operation: ops.Run) -> None:
    """Record that the only attempt begins; one that had begun was interrupted."""
    if frame.memo is not None and frame.memo.status == StepStatus.RUNNING:
        message = (
            f"Step {operation.id!r} may run at most once, and was interrupted: whether "
            f"its body had its effect is not known."
        )
        raise frame.fail_with("StepInterrupted", message, frame.memo.started_at)
    memo = frame.memo_as(StepStatus.RUNNING, started_at=clock.now())
    frame.session.record(memo)
    frame.memo = memo


def atomic(frame: Frame, operation: ops.Atomic) -> Plan:
    """Call the body and record its result in one transaction."""
    _check_atomic(operation)
    frame.session.begin(operation.id)
    if not_due(frame):
        raise Suspend
    started = clock.now()
    hit("step.before", operation.id)
    blank = frame.memo_as(StepStatus.COMPLETED, started_at=started, due_at=None)
    outcome: Outcome = yield Call(
        fn=functools.partial(_committed, frame, operation, blank),
        name=operation.id,
        attempt=blank.attempt,
        own=True,
    )
    if outcome.error is not None:
        suspend = schedule(frame, outcome.error, started)
        raise suspend or frame.fail(record_of(outcome.error), started)
    memo, status = outcome.value
    frame.session.recorded(memo, status)
    hit("step.after", operation.id)
    frame.session.go_on()
    return serialization.loads(memo.output)


def _committed(frame: Frame, operation: ops.Atomic, blank: Memo) -> tuple[Memo, str]:
    """Do it together; a database that fails is the body's error in the body alone.

    Where the commit fails, nobody knows whether it was one: the record tells.
    """
    called = _Called(stubbed(operation.id, operation.fn))
    try:
        return _together(frame, operation, blank, called)
    except db.TROUBLE as error:
        if error is called.error:
            raise
        raise StoreFailed from error


class _Called:
    """A body that remembers what it has raised."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.error: Exception | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._fn(*args, **kwargs)
        except Exception as error:
            self.error = error
            raise


def _together(
    frame: Frame, operation: ops.Atomic, blank: Memo, body: Callable[..., Any]
) -> tuple[Memo, str]:
    """Lock the run, call the body, record: one commit, or nothing of it.

    The lock comes first, so that whoever lost the lease writes nothing.
    """
    with transaction.atomic(using=db.alias()):
        status = steps.fence(frame.session.lease)
        hit("record.locked")
        if not frame.scope.alive:
            raise BranchDropped  # who holds the lock sees what the others decided
        value = body(*operation.args, **operation.kwargs)
        text = frame.session.encode(value, operation.id)
        memo = blank.but(output=text, error=None, ended_at=clock.now())
        steps.write(frame.session.run.pk, [memo])
        hit("step.body", operation.id)
    hit("record.committed", operation.id)
    return memo, status


def _check_atomic(operation: ops.Atomic) -> None:
    if operation.using not in (None, db.alias()):
        msg = (
            f"Step {operation.id!r}: an atomic step shares one transaction with the "
            f"runs, which are in {db.alias()!r}, not in {operation.using!r}."
        )
        raise ConfigurationError(msg)
    if iscoroutinefunction(operation.fn):
        msg = f"Step {operation.id!r}: a transaction needs def, not async def."
        raise ConfigurationError(msg)
