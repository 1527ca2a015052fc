"""``wait_for_condition``: poll a condition, with the state in one row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import clock, serialization
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.completion import Done
from durable_jobs.durations import format_duration, parse_duration
from durable_jobs.engine.effects import CallBody, Plan, StepCall
from durable_jobs.engine.retries import describe_body_error, log_failure, next_attempt
from durable_jobs.engine.suspend import Suspend
from durable_jobs.exceptions import LimitExceeded, PayloadError
from durable_jobs.failpoints import failpoint
from durable_jobs.models import WaitKind
from durable_jobs.retry import as_backoff
from durable_jobs.statuses import StepStatus
from durable_jobs.store import steps
from durable_jobs.store.runs import SuspendedStep
from durable_jobs.store.steps import StepRecord
from durable_jobs.store.waits import NewWait


def wait(step: StepCall, operation: ops.WaitForCondition) -> Plan:
    """Poll once if it is due; complete, or suspend until the next poll."""
    state = step.state
    state.check_may_start()
    step_record = step.step_record
    if (
        step_record is not None
        and step_record.due_at is not None
        and step_record.due_at > clock.now()
    ):
        raise Suspend
    poll = _PollState.of(operation, step_record)
    started = step_record.started_at if step_record is not None else clock.now()
    step.capture_logs(clock.now(), poll.errors)
    failpoint("step.before", operation.id)
    outcome = yield CallBody(
        fn=operation.check,
        name=operation.id,
        failure_count=poll.errors,
        args=(serialization.private_copy(poll.state),),
        lines=step.lines,
    )
    failpoint("step.body", operation.id)
    if outcome.error is not None:
        return _failed(step, poll, outcome.error, started)
    if isinstance(outcome.value, Done):
        return _complete(step, outcome.value.value, started)
    poll.state, poll.errors = outcome.value, 0
    poll.attempts += 1
    if operation.max_attempts is not None and poll.attempts >= operation.max_attempts:
        message = f"The condition was not met in {poll.attempts} attempts."
        raise _fail(
            step,
            {
                "type": "ConditionTimeout",
                "message": message,
                "raise": "ConditionTimeout",
            },
            started,
        )
    if operation.backoff is None:
        pause = parse_duration(operation.every)
    else:
        pause = as_backoff(operation.backoff).delay(poll.attempts - 1, None)
    raise _suspend(step, poll, clock.now() + pause, started)


class _PollState:
    """How often the condition was polled, the next poll's state, and the deadline."""

    def __init__(
        self, attempts: int, errors: int, state: Any, deadline: datetime | None
    ) -> None:
        self.attempts, self.errors = attempts, errors
        self.state, self.deadline = state, deadline

    @classmethod
    def of(
        cls, operation: ops.WaitForCondition, step_record: StepRecord | None
    ) -> _PollState:
        """Return the recorded state, or the initial state."""
        if step_record is None or step_record.detail is None:
            limit: timedelta | None = operation.limit
            deadline = None if limit is None else clock.now() + limit
            return cls(0, 0, operation.initial, deadline)
        stored = step_record.detail
        deadline = stored.get("deadline")
        return cls(
            stored["attempts"],
            stored["errors"],
            serialization.from_tree(stored["state"]),
            None if deadline is None else datetime.fromisoformat(deadline),
        )

    def detail(self, name: str) -> dict[str, Any]:
        """Return the state as JSON."""
        return {
            "attempts": self.attempts,
            "errors": self.errors,
            "state": serialization.to_tree(self.state, what=f"the state of {name!r}"),
            "deadline": None if self.deadline is None else self.deadline.isoformat(),
        }


def _suspend(
    step: StepCall,
    poll: _PollState,
    due: datetime,
    started: datetime | None,
    in_transaction: Callable[[], None] | None = None,
) -> BaseException:
    try:
        detail = poll.detail(step.name)
        step.state.history.encode(poll.state, step.name)
    except (PayloadError, LimitExceeded) as refused:
        return _fail(step, describe_body_error(refused), started)
    waits = [NewWait(kind=WaitKind.POLL, due_at=due)]
    if poll.deadline is not None:
        waits.append(_timeout(step, poll.deadline))
    step_record = step.record_as(
        StepStatus.WAITING,
        attempt=poll.attempts,
        detail=detail,
        logs=step.take_logs(),
        due_at=due,
        started_at=started,
    )
    item = SuspendedStep(
        step_record,
        waits,
        replaces_waits=step.step_record is not None,
        effect=in_transaction,
    )
    return step.state.recorder.suspend_step(item, at_once=step.scope.concurrent)


def _timeout(step: StepCall, deadline: datetime) -> NewWait:
    operation = step.operation
    assert isinstance(operation, ops.WaitForCondition)
    length = format_duration(operation.limit or timedelta())
    message = f"The condition was not met within {length}."
    error = {
        "type": "ConditionTimeout",
        "message": message,
        "raise": "ConditionTimeout",
    }
    return NewWait(kind=WaitKind.TIMEOUT, due_at=deadline, condition={"error": error})


def _failed(
    step: StepCall, poll: _PollState, error: BaseException, started: datetime | None
) -> Any:
    function = step.state.function
    due = next_attempt(error, poll.errors, function.retries, function.backoff)
    if due is None:
        raised = _fail(step, describe_body_error(error), started)
        log_failure(step, describe_body_error(error), error, failure_count=poll.errors)
        raise raised
    error_record, failures = describe_body_error(error), poll.errors
    ended, logs = clock.now(), step.take_logs()
    poll.errors += 1

    def in_transaction() -> None:
        run_id = step.state.run.pk
        steps.record_failed_attempt(
            run_id, step.key, failures, error_record, started, ended, logs
        )
        log_failure(step, error_record, error, failure_count=failures, due_at=due)

    raise _suspend(step, poll, due, started, in_transaction=in_transaction)


def _complete(step: StepCall, value: Any, started: datetime | None) -> Any:
    text = step.state.history.encode(value, step.name)
    step_record = step.record_as(
        StepStatus.COMPLETED,
        output=text,
        error=None,
        logs=step.take_logs(),
        due_at=None,
        started_at=started,
        ended_at=clock.now(),
    )
    step.state.recorder.record_with(lambda: step_record, drop_waits=True)
    failpoint("step.after", step.name)
    step.state.suspend_if_always()
    return serialization.loads(text)


def _fail(
    step: StepCall, error_record: dict[str, Any], started: datetime | None
) -> BaseException:
    from durable_jobs.engine.errors import rebuild

    step_record = step.record_as(
        StepStatus.FAILED,
        error=error_record,
        logs=step.take_logs(),
        due_at=None,
        started_at=started,
        ended_at=clock.now(),
    )
    step.state.recorder.record_with(lambda: step_record, drop_waits=True)
    return rebuild(error_record, step.name, step.key)
