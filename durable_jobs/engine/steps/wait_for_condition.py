"""``wait_for_condition``: a question asked again and again, in one row."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import clock, serialization
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.completion import Done
from durable_jobs.durations import format_duration, parse_duration
from durable_jobs.engine.effects import CallBody, Plan, StepCall
from durable_jobs.engine.retries import next_attempt, record_of, told
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
    """Ask once if it is time; end, or park until the next time."""
    state = step.state
    state.begin(operation.id)
    memo = step.memo
    if memo is not None and memo.due_at is not None and memo.due_at > clock.now():
        raise Suspend
    asked = _Asked.of(operation, memo)
    started = memo.started_at if memo is not None else clock.now()
    step.capture_logs(clock.now(), asked.errors)
    failpoint("step.before", operation.id)
    outcome = yield CallBody(
        fn=operation.check,
        name=operation.id,
        attempt=asked.errors,
        args=(serialization.own_copy(asked.state),),
        lines=step.lines,
    )
    failpoint("step.body", operation.id)
    if outcome.error is not None:
        return _failed(step, asked, outcome.error, started)
    if isinstance(outcome.value, Done):
        return _end(step, outcome.value.value, started)
    asked.state, asked.errors = outcome.value, 0
    asked.attempts += 1
    if operation.max_attempts is not None and asked.attempts >= operation.max_attempts:
        message = f"The condition was not met in {asked.attempts} attempts."
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
        pause = as_backoff(operation.backoff).delay(asked.attempts - 1, None)
    raise _park(step, asked, clock.now() + pause, started)


class _Asked:
    """How often was asked, what the next asking is given, and when it must be over."""

    def __init__(
        self, attempts: int, errors: int, state: Any, deadline: datetime | None
    ) -> None:
        self.attempts, self.errors = attempts, errors
        self.state, self.deadline = state, deadline

    @classmethod
    def of(cls, operation: ops.WaitForCondition, memo: StepRecord | None) -> _Asked:
        """Return it as recorded, or as it is at the beginning."""
        if memo is None or memo.detail is None:
            limit: timedelta | None = operation.limit
            deadline = None if limit is None else clock.now() + limit
            return cls(0, 0, operation.initial, deadline)
        kept = memo.detail
        deadline = kept.get("deadline")
        return cls(
            kept["attempts"],
            kept["errors"],
            serialization.from_tree(kept["state"]),
            None if deadline is None else datetime.fromisoformat(deadline),
        )

    def detail(self, name: str) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "attempts": self.attempts,
            "errors": self.errors,
            "state": serialization.to_tree(self.state, what=f"the state of {name!r}"),
            "deadline": None if self.deadline is None else self.deadline.isoformat(),
        }


def _park(
    step: StepCall,
    asked: _Asked,
    due: datetime,
    started: datetime | None,
    along: Callable[[], None] | None = None,
) -> BaseException:
    try:
        detail = asked.detail(step.name)
        step.state.history.encode(asked.state, step.name)
    except (PayloadError, LimitExceeded) as refused:
        return _fail(step, record_of(refused), started)
    waits = [NewWait(kind=WaitKind.POLL, due_at=due)]
    if asked.deadline is not None:
        waits.append(_timeout(step, asked.deadline))
    memo = step.memo_as(
        StepStatus.WAITING,
        attempt=asked.attempts,
        detail=detail,
        logs=step.take_logs(),
        due_at=due,
        started_at=started,
    )
    item = SuspendedStep(
        memo, waits, replaces_waits=step.memo is not None, effect=along
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
    step: StepCall, asked: _Asked, error: BaseException, started: datetime | None
) -> Any:
    function = step.state.function
    due = next_attempt(error, asked.errors, function.retries, function.backoff)
    if due is None:
        raised = _fail(step, record_of(error), started)
        told(step, record_of(error), error, number=asked.errors)
        raise raised
    record, number, ended = record_of(error), asked.errors, clock.now()
    logs = step.take_logs()
    asked.errors += 1

    def along() -> None:
        run_id = step.state.run.pk
        steps.record_attempt(run_id, step.key, number, record, started, ended, logs)
        told(step, record, error, number=number, due_at=due)

    raise _park(step, asked, due, started, along=along)


def _end(step: StepCall, value: Any, started: datetime | None) -> Any:
    text = step.state.history.encode(value, step.name)
    memo = step.memo_as(
        StepStatus.COMPLETED,
        output=text,
        error=None,
        logs=step.take_logs(),
        due_at=None,
        started_at=started,
        ended_at=clock.now(),
    )
    step.state.recorder.record_with(lambda: memo, drop_waits=True)
    failpoint("step.after", step.name)
    step.state.go_on()
    return serialization.loads(text)


def _fail(
    step: StepCall, record: dict[str, Any], started: datetime | None
) -> BaseException:
    from durable_jobs.engine.errors import rebuild

    memo = step.memo_as(
        StepStatus.FAILED,
        error=record,
        logs=step.take_logs(),
        due_at=None,
        started_at=started,
        ended_at=clock.now(),
    )
    step.state.recorder.record_with(lambda: memo, drop_waits=True)
    return rebuild(record, step.name, step.key)
