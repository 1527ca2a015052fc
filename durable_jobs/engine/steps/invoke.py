"""``invoke``, ``start`` and ``send_event``: steps that make other runs start."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from durable_jobs import clock
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.engine.effects import Plan, StepCall, result_of
from durable_jobs.engine.errors import describe
from durable_jobs.engine.suspend import Suspend
from durable_jobs.events import send_event as event_sender
from durable_jobs.exceptions import DuplicateKeyError
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import start as start_runs
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.models import Run, WaitKind
from durable_jobs.statuses import StepStatus
from durable_jobs.store import awaited_runs, waits
from durable_jobs.store.idempotency import KeyClaim
from durable_jobs.store.runs import INVOKE, START, SuspendedStep, outcome_of
from durable_jobs.store.steps import StepRecord
from durable_jobs.store.waits import NewWait


def invoke(step: StepCall, operation: ops.Invoke) -> Plan:
    """Start a child with the wait for its end, in one transaction.

    If a run holds the child's key, the step waits for that run.
    """
    if step.memo is not None:
        raise Suspend
    step.state.begin(operation.id)
    child, claims = _child(step, operation.function, operation.data, INVOKE)
    now = clock.now()
    new = [NewWait(kind=WaitKind.CHILD, name=str(child.id))]
    if operation.limit is not None:
        message = f"Run {child.id} of {child.function.id} did not end in time."
        new.append(timeout_wait(operation.limit, "InvokeTimeout", message))
    memo = step.memo_as(
        StepStatus.INVOKING, started_at=now, detail={"child": str(child.id)}
    )
    if claims:
        return _invoke_once(step, child, claims, memo, new)

    def effect() -> None:
        start_runs.insert([child])
        failpoint("step.body", operation.id)

    failpoint("step.before", operation.id)
    item = SuspendedStep(memo, new, effect=effect)
    raise step.state.recorder.suspend_step(item, at_once=step.scope.concurrent)
    yield  # a plan is a generator, also one that calls nothing


def _invoke_once(
    step: StepCall,
    child: NewRun,
    claims: Sequence[KeyClaim],
    memo: StepRecord,
    new: Sequence[NewWait],
) -> Any:
    """Do so under keys: start the child, or wait for the run that holds its key."""

    def effect() -> StepRecord:
        made = memo
        try:
            run, mine = start_runs.start_once(child, claims)
        except DuplicateKeyError as error:
            return _failed(memo, error, "InvokeFailed")
        if not mine:
            made = _joined(step.state.run.pk, run, memo)
        if not made.ended:
            waits.register(step.state.run.pk, memo.key, _for_run(new, run, mine))
        failpoint("step.body", memo.name)
        return made

    failpoint("step.before", memo.name)
    memo = step.state.recorder.record_with(effect)
    failpoint("step.after", memo.name)
    if not memo.ended:
        step.state.recorder.waited = True
        raise Suspend
    step.state.go_on()
    return result_of(memo)


def _joined(parent: uuid.UUID, run: Run, memo: StepRecord) -> StepRecord:
    """Return the record of a step whose key another run holds."""
    memo = memo.but(detail={"child": str(run.pk)})
    if awaited_runs.waits_for(run.pk, parent):
        msg = f"Run {run.pk} holds the key, and would wait for itself."
        return _failed(memo, DuplicateKeyError(msg), "InvokeFailed")
    if awaited_runs.mark(run.pk):
        return memo
    run.refresh_from_db(fields=["status", "error", "reason"])
    outcome = outcome_of(run)
    assert outcome is not None, "a run that cannot be marked has ended"
    return memo.but(
        status=outcome.status,
        output=outcome.output,
        error=outcome.error,
        ended_at=clock.now(),
    )


def _for_run(new: Sequence[NewWait], run: Run, mine: bool) -> list[NewWait]:
    """Return the waits of a step for a run: its own child, or another's run."""
    if mine:
        return list(new)
    due = awaited_runs.next_check(clock.now())
    wait = NewWait(kind=WaitKind.CHILD, name=str(run.pk), due_at=due)
    return [wait, *(one for one in new if one.kind != WaitKind.CHILD)]


def start(step: StepCall, operation: ops.StartRun) -> Plan:
    """Start a run and record its id, in one transaction.

    If a run holds the key of the start, that run's id is recorded.
    """
    step.state.begin(operation.id)
    child, claims = _child(step, operation.function, operation.data, START)
    now = clock.now()

    def effect() -> StepRecord:
        try:
            run, _ = start_runs.start_once(child, claims)
        except DuplicateKeyError as error:
            blank = step.memo_as(StepStatus.FAILED, started_at=now)
            return _failed(blank, error, "StepFailed")
        failpoint("step.body", operation.id)
        return _completed(step, str(run.pk), now)

    return _recorded(step, effect)
    yield  # a plan is a generator, also one that calls nothing


def _failed(memo: StepRecord, error: DuplicateKeyError, kind: str) -> StepRecord:
    record = {**describe(error), "raise": kind}
    return memo.but(status=StepStatus.FAILED, error=record, ended_at=clock.now())


def send_event(step: StepCall, operation: ops.SendEvent) -> Plan:
    """Send events and record their ids, in one transaction."""
    step.state.begin(operation.id)
    now = clock.now()

    def effect() -> StepRecord:
        sent = event_sender.send(operation.events, event_sender.STEP)
        failpoint("step.body", operation.id)
        return _completed(step, sent, now)

    return _recorded(step, effect)
    yield  # a plan is a generator, also one that calls nothing


def _recorded(step: StepCall, effect: Callable[[], StepRecord]) -> Any:
    """Do something with the record of it, and return what every replay will see."""
    failpoint("step.before", step.name)
    memo = step.state.recorder.record_with(effect)
    failpoint("step.after", step.name)
    step.state.go_on()
    return result_of(memo)


def _completed(step: StepCall, value: Any, started: Any) -> StepRecord:
    return step.memo_as(
        StepStatus.COMPLETED,
        output=step.state.history.encode(value, step.name),
        started_at=started,
        ended_at=clock.now(),
    )


def _child(
    step: StepCall, function: Function | str, data: Any, parent_relation: str
) -> tuple[NewRun, list[KeyClaim]]:
    """Return the start of a child and the claims on its keys.

    Raise ``ExpressionError`` if a key of its flow control fails.
    """
    target = registry.get(function) if isinstance(function, str) else function
    made = start_runs.call(
        target,
        data,
        what=f"the data of step {step.name!r}",
        parent=step.state.run,
        parent_step=step.key,
        parent_relation=parent_relation,
    ).controlled()
    return made, start_runs.claims_of(made, data)


def timeout_wait(limit: timedelta, kind: str, message: str) -> NewWait:
    """Return the wait that makes a step raise an error when its time is over."""
    return NewWait(
        kind=WaitKind.TIMEOUT,
        due_at=clock.now() + limit,
        condition={"error": {"type": kind, "message": message, "raise": kind}},
    )
