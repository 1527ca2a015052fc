"""The effects that the plan of a step yields, and the step call that it works with."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import clock, ids, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.operations import Operation
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.errors import ErrorRecord, describe_error, rebuild
from durable_jobs.engine.scope import Scope
from durable_jobs.logs import Lines
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord


@dataclass(frozen=True, slots=True)
class BodyOutcome:
    """The result of a call: a value or an error."""

    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBody:
    """Call the body of a step; no steps are allowed inside.

    Resumed with a ``BodyOutcome``.
    """

    fn: Callable[..., Any]
    name: str
    #: How many attempts of the body have failed before.
    failure_count: int = 0
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: timedelta | None = None
    #: Captures the logs of the body.
    lines: Lines | None = None
    #: ``fn`` is engine code around the body: it runs in the attempt's thread, and tests
    #: cannot stub it.
    is_engine_code: bool = False


@dataclass(frozen=True, slots=True)
class CallBranch:
    """Call a branch in its own scope. Resumed with a ``BodyOutcome``."""

    fn: Callable[[], Any]
    name: str
    scope: Scope
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class RunBranches:
    """Run branches in parallel, in order, until ``decided`` returns true.

    ``discard_unfinished`` discards the other branches then. Resumed with None.
    """

    branches: Sequence[Callable[[], Plan]]
    width: int | None
    decided: Callable[[], bool]
    discard_unfinished: Callable[[], None]


@dataclass(frozen=True, slots=True)
class RecordStep:
    """Record a step for the branch ``scope``. Resumed after the commit."""

    step_record: StepRecord
    scope: Scope


Effect = CallBody | CallBranch | RunBranches | RecordStep
Plan = Generator[Effect, Any, Any]


@dataclass(slots=True)
class StepCall:
    """One step at one place in the code: its key and its record.

    ``input`` is the arguments of its body as a JSON string, written with its first
    record. ``lines`` captures the logs of its body. ``branch`` is the scope inside the
    step, if it is a branch.
    """

    state: AttemptState
    scope: Scope
    operation: Operation
    key: str
    step_record: StepRecord | None
    input: str | None = None
    lines: Lines | None = None
    branch: Scope | None = None

    @property
    def name(self) -> str:
        """The id of the step as declared in the code."""
        return self.operation.id

    @property
    def failure_count(self) -> int:
        """How many attempts of the step have failed."""
        return 0 if self.step_record is None else self.step_record.attempt

    @property
    def record_scope(self) -> Scope:
        """The scope that records the step."""
        return self.branch or self.scope

    def record_as(self, status: StepStatus, **values: Any) -> StepRecord:
        """Return the record with changed values, or a new record."""
        if self.step_record is not None:
            return self.step_record.but(status=status, **values)
        return self.new_record(self.operation.kind, status, **values)

    def new_record(self, kind: str, status: StepStatus, **values: Any) -> StepRecord:
        """Return the first record of the step; raise if the run has too many steps."""
        self.state.history.check_step_count(self.name)
        return StepRecord(
            key=self.key,
            name=self.name,
            kind=kind,
            status=status,
            position=self.state.history.next_position(),
            parent=ids.step_pk(self.state.run.pk, self.scope.key)
            if self.scope.key
            else None,
            input=self.input,
            **values,
        )

    def set_input(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Keep the arguments of the body, unless the step has a record."""
        if self.step_record is None and settings.STORE_STEP_INPUTS:
            self.input = serialization.arguments_text(args, kwargs)

    def capture_logs(self, began: datetime, failure_count: int | None = None) -> None:
        """Capture the logs of the body from now on.

        ``failure_count``: for steps that count their failures themselves.
        """
        failures = self.failure_count if failure_count is None else failure_count
        fields = {"step": self.name, "step_key": self.key, "attempt": failures + 1}
        self.lines = Lines(began, fields)

    def take_logs(self) -> dict[str, Any] | None:
        """Return the captured logs, once."""
        return None if self.lines is None else self.lines.take()

    def complete(self, value: Any, started: datetime | None, **values: Any) -> Plan:
        """Record a result, and return it as decoded from the record."""
        text = self.state.history.encode(value, self.name)
        step_record = self.record_as(
            StepStatus.COMPLETED,
            output=text,
            error=None,
            logs=self.take_logs(),
            due_at=None,
            started_at=started,
            ended_at=clock.now(),
            **values,
        )
        yield from self.write(step_record)
        return serialization.loads(text)

    def write(self, step_record: StepRecord) -> Plan:
        """Record the step."""
        self.step_record = step_record
        yield RecordStep(step_record, self.record_scope)

    def fail(
        self,
        error_record: ErrorRecord,
        started: datetime | None,
        status: StepStatus = StepStatus.FAILED,
        **values: Any,
    ) -> Plan:
        """Record a failure and return the error to raise."""
        step_record = self.record_as(
            status,
            error=error_record,
            logs=self.take_logs(),
            due_at=None,
            started_at=started,
            ended_at=clock.now(),
            **values,
        )
        yield from self.write(step_record)
        return rebuild(error_record, self.name, self.key)

    def fail_with(self, kind: str, message: str, started: datetime | None) -> Plan:
        """Record a failure that the engine raises; return the error to raise."""
        error_record = {"type": kind, "message": message, "raise": kind}
        return (yield from self.fail(error_record, started))


def result_of(step_record: StepRecord) -> Any:
    """Return the recorded result of an ended step, or raise its recorded error."""
    if step_record.status in (StepStatus.FAILED, StepStatus.CANCELLED):
        raise rebuild(step_record.error or {}, step_record.name, step_record.key)
    return (
        None if step_record.output is None else serialization.loads(step_record.output)
    )


__all__ = [
    "BodyOutcome",
    "CallBody",
    "CallBranch",
    "Effect",
    "Plan",
    "RecordStep",
    "RunBranches",
    "StepCall",
    "describe_error",
    "result_of",
]
