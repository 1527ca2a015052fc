"""``invoke``, ``start`` and ``send_event``: steps that start other runs."""

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
from durable_jobs.engine.errors import describe_error
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
    """Start a child run together with the wait for its end, in one transaction.

    If a run holds the child's key, the step waits for that run.
    """
    if step.step_record is not None:
        raise Suspend
    step.state.check_may_start()
    child, claims = _child(step, operation.function, operation.data, INVOKE)
    now = clock.now()
    new = [NewWait(kind=WaitKind.CHILD, name=str(child.id))]
    if operation.limit is not None:
        message = f"Run {child.id} of {child.function.id} did not end in time."
        new.append(timeout_wait(operation.limit, "InvokeTimeout", message))
    step_record = step.record_as(
        StepStatus.INVOKING, started_at=now, detail={"child": str(child.id)}
    )
    if claims:
        return _invoke_once(step, child, claims, step_record, new)

    def effect() -> None:
        start_runs.insert([child])
        failpoint("step.body", operation.id)

    failpoint("step.before", operation.id)
    item = SuspendedStep(step_record, new, effect=effect)
    raise step.state.recorder.suspend_step(item, at_once=step.scope.concurrent)
    yield  # makes this function a generator


def _invoke_once(
    step: StepCall,
    child: NewRun,
    claims: Sequence[KeyClaim],
    step_record: StepRecord,
    new: Sequence[NewWait],
) -> Any:
    """Invoke under keys: start the child, or wait for the run that holds its key."""

    def effect() -> StepRecord:
        record_made = step_record
        try:
            run, started = start_runs.start_once(child, claims)
        except DuplicateKeyError as error:
            return _failed_record(step_record, error, "InvokeFailed")
        if not started:
            record_made = _join(step.state.run.pk, run, step_record)
        if not record_made.ended:
            waits.register(
                step.state.run.pk, step_record.key, _for_run(new, run, started)
            )
        failpoint("step.body", step_record.name)
        return record_made

    failpoint("step.before", step_record.name)
    step_record = step.state.recorder.record_with(effect)
    failpoint("step.after", step_record.name)
    if not step_record.ended:
        step.state.recorder.waited = True
        raise Suspend
    step.state.suspend_if_always()
    return result_of(step_record)


def _join(parent: uuid.UUID, run: Run, step_record: StepRecord) -> StepRecord:
    """Return the record of a step whose key another run holds."""
    step_record = step_record.but(detail={"child": str(run.pk)})
    if awaited_runs.waits_for(run.pk, parent):
        msg = f"Run {run.pk} holds the key; it would wait for itself."
        return _failed_record(step_record, DuplicateKeyError(msg), "InvokeFailed")
    if awaited_runs.mark(run.pk):
        return step_record
    run.refresh_from_db(fields=["status", "error", "reason"])
    outcome = outcome_of(run)
    assert outcome is not None, "a run that cannot be marked has ended"
    return step_record.but(
        status=outcome.status,
        output=outcome.output,
        error=outcome.error,
        ended_at=clock.now(),
    )


def _for_run(new: Sequence[NewWait], run: Run, started: bool) -> list[NewWait]:
    """Return the waits for a run: for the step's own child, or for another run."""
    if started:
        return list(new)
    due = awaited_runs.next_check(clock.now())
    wait = NewWait(kind=WaitKind.CHILD, name=str(run.pk), due_at=due)
    return [wait, *(wait for wait in new if wait.kind != WaitKind.CHILD)]


def start(step: StepCall, operation: ops.StartRun) -> Plan:
    """Start a run and record its id, in one transaction.

    If a run holds the key of the start, that run's id is recorded.
    """
    step.state.check_may_start()
    child, claims = _child(step, operation.function, operation.data, START)
    now = clock.now()

    def effect() -> StepRecord:
        try:
            run, _ = start_runs.start_once(child, claims)
        except DuplicateKeyError as error:
            blank = step.record_as(StepStatus.FAILED, started_at=now)
            return _failed_record(blank, error, "StepFailed")
        failpoint("step.body", operation.id)
        return _completed_record(step, str(run.pk), now)

    return _record(step, effect)
    yield  # makes this function a generator


def _failed_record(
    step_record: StepRecord, error: DuplicateKeyError, kind: str
) -> StepRecord:
    error_record = {**describe_error(error), "raise": kind}
    return step_record.but(
        status=StepStatus.FAILED, error=error_record, ended_at=clock.now()
    )


def send_event(step: StepCall, operation: ops.SendEvent) -> Plan:
    """Send events and record their ids, in one transaction."""
    step.state.check_may_start()
    now = clock.now()

    def effect() -> StepRecord:
        sent = event_sender.send(operation.events, event_sender.STEP)
        failpoint("step.body", operation.id)
        return _completed_record(step, sent, now)

    return _record(step, effect)
    yield  # makes this function a generator


def _record(step: StepCall, effect: Callable[[], StepRecord]) -> Any:
    """Call ``effect`` and record its step; return the recorded result."""
    failpoint("step.before", step.name)
    step_record = step.state.recorder.record_with(effect)
    failpoint("step.after", step.name)
    step.state.suspend_if_always()
    return result_of(step_record)


def _completed_record(step: StepCall, value: Any, started: Any) -> StepRecord:
    return step.record_as(
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
    record_made = start_runs.call(
        target,
        data,
        what=f"the data of step {step.name!r}",
        parent=step.state.run,
        parent_step=step.key,
        parent_relation=parent_relation,
    ).with_flow_control()
    return record_made, start_runs.claims_of(record_made, data)


def timeout_wait(limit: timedelta, kind: str, message: str) -> NewWait:
    """Return the wait that makes a step raise an error at its timeout."""
    return NewWait(
        kind=WaitKind.TIMEOUT,
        due_at=clock.now() + limit,
        condition={"error": {"type": kind, "message": message, "raise": kind}},
    )
