"""``wait_for_callback``: wait for the result of external work."""

from __future__ import annotations

from typing import Any

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.callbacks import Callback
from durable_jobs.durations import format_duration
from durable_jobs.engine.effects import CallBody, Plan, StepCall, result_of
from durable_jobs.engine.retries import describe_body_error, log_failure, schedule_retry
from durable_jobs.engine.steps.invoke import timeout_wait
from durable_jobs.engine.suspend import Suspend
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import callbacks
from durable_jobs.models import WaitKind
from durable_jobs.statuses import StepStatus
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.steps import StepRecord
from durable_jobs.store.waits import NewWait

SUBMITTED = {"submitted": True}


def wait(step: StepCall, operation: ops.WaitForCallback) -> Plan:
    """Register the wait, then submit: a result that arrives during submit is kept."""
    state = step.state
    state.check_may_start()
    if _submitted(step.step_record) or _not_due(step.step_record):
        raise Suspend
    if step.step_record is None:
        step_record = step.record_as(StepStatus.WAITING, started_at=clock.now())
        state.recorder.suspend_step(
            SuspendedStep(step_record, _waits(operation)), at_once=True
        )
        step.step_record = step_record
    failpoint("step.before", operation.id)
    if operation.submit is not None:
        yield from _submit(step, operation)
    failpoint("step.body", operation.id)
    step_record = step.record_as(
        StepStatus.WAITING, detail=SUBMITTED, logs=step.take_logs(), due_at=None
    )
    yield from step.write(step_record)
    failpoint("step.after", operation.id)
    raise Suspend


def _submit(step: StepCall, operation: ops.WaitForCallback) -> Plan:
    assert operation.submit is not None, "checked by the caller"
    started = clock.now()
    step.capture_logs(started)
    token = callbacks.token(step.state.run.pk, step.key)
    outcome = yield CallBody(
        fn=operation.submit,
        name=operation.id,
        failure_count=step.failure_count,
        # Not stored as the step's input: the token is a secret.
        args=(Callback(token, _url(token)),),
        lines=step.lines,
    )
    if outcome.error is None:
        return
    suspend = schedule_retry(step, outcome.error, started, keep_waits=True)
    if suspend is not None:
        raise suspend
    error_record = describe_body_error(outcome.error)
    failed = step.record_as(
        StepStatus.FAILED,
        error=error_record,
        logs=step.take_logs(),
        due_at=None,
        ended_at=clock.now(),
    )
    step.state.recorder.record_with(lambda: failed, drop_waits=True)
    log_failure(step, error_record, outcome.error)
    result_of(failed)


def _url(token: str) -> str | None:
    base = settings.CALLBACK_BASE_URL
    return None if base is None else f"{base.rstrip('/')}/{token}"


def _submitted(step_record: StepRecord | None) -> bool:
    return step_record is not None and bool((step_record.detail or {}).get("submitted"))


def _not_due(step_record: StepRecord | None) -> bool:
    return (
        step_record is not None
        and step_record.due_at is not None
        and step_record.due_at > clock.now()
    )


def _waits(operation: ops.WaitForCallback) -> list[NewWait]:
    rows = [NewWait(kind=WaitKind.CALLBACK)]
    if operation.limit is not None:
        length = format_duration(operation.limit)
        rows.append(_timeout(operation.limit, f"No result came within {length}."))
    if operation.beat is not None:
        length = format_duration(operation.beat)
        heartbeat = _timeout(operation.beat, f"No heartbeat came for {length}.")
        rows.append(
            NewWait(
                kind=heartbeat.kind,
                due_at=heartbeat.due_at,
                name="heartbeat",
                condition={
                    **(heartbeat.condition or {}),
                    "seconds": operation.beat.total_seconds(),
                },
            )
        )
    return rows


def _timeout(length: Any, message: str) -> NewWait:
    return timeout_wait(length, "CallbackTimeout", message)
