"""What a step's generator works with, and what it yields."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import clock, ids, serialization
from durable_jobs.conf import settings
from durable_jobs.definitions.operations import Operation
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.errors import Record, describe, rebuild
from durable_jobs.engine.scope import Scope
from durable_jobs.logs import Lines
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord


@dataclass(frozen=True, slots=True)
class BodyOutcome:
    """What a call came to: a value, or an error."""

    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallBody:
    """Call a step's body: no steps inside. Answered with an ``Outcome``."""

    fn: Callable[..., Any]
    name: str
    attempt: int = 0
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: timedelta | None = None
    #: Where what it logs is kept.
    lines: Lines | None = None
    #: ``fn`` is the engine's own, around the body: on the attempt's thread, not
    #: stubbed.
    own: bool = False


@dataclass(frozen=True, slots=True)
class CallBranch:
    """Call a branch, in a scope of its own. Answered with an ``Outcome``."""

    fn: Callable[[], Any]
    name: str
    scope: Scope
    lines: Lines | None = None


@dataclass(frozen=True, slots=True)
class RunBranches:
    """Drive branches side by side, in order, until ``decided``. Answered with None.

    ``drop`` lets those that go on then write nothing more.
    """

    branches: Sequence[Callable[[], Plan]]
    width: int | None
    decided: Callable[[], bool]
    drop: Callable[[], None]


@dataclass(frozen=True, slots=True)
class RecordStep:
    """Record a step, for the branch ``scope``. Answered when it is durable."""

    memo: StepRecord
    scope: Scope


Effect = CallBody | CallBranch | RunBranches | RecordStep
Plan = Generator[Effect, Any, Any]


@dataclass(slots=True)
class StepCall:
    """One step at one place in the code: its key, and what is recorded of it.

    ``input`` is what its body is called with, as JSON text, and is written with its
    first record; ``lines`` are what its body logs. ``branch`` is the scope inside the
    step, if it is a branch.
    """

    state: AttemptState
    scope: Scope
    operation: Operation
    key: str
    memo: StepRecord | None
    input: str | None = None
    lines: Lines | None = None
    branch: Scope | None = None

    @property
    def name(self) -> str:
        """The id as written."""
        return self.operation.id

    @property
    def place(self) -> Scope:
        """The scope for which the step is written."""
        return self.branch or self.scope

    def memo_as(self, status: StepStatus, **values: Any) -> StepRecord:
        """Return what is recorded of the step with other values, or a new record."""
        if self.memo is not None:
            return self.memo.but(status=status, **values)
        return self.new_memo(self.operation.kind, status, **values)

    def new_memo(self, kind: str, status: StepStatus, **values: Any) -> StepRecord:
        """Return the first record of the step; raise when the run has too many."""
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

    def given(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Take note of what the body is called with, if nothing is recorded yet."""
        if self.memo is None and settings.STORE_STEP_INPUTS:
            self.input = serialization.arguments_text(args, kwargs)

    def keep_lines(self, began: datetime, attempt: int | None = None) -> None:
        """Keep what the body logs from now on.

        ``attempt``: how often the body failed before, where the step counts that.
        """
        if attempt is None:
            attempt = 0 if self.memo is None else self.memo.attempt
        place = {"step": self.name, "step_key": self.key, "attempt": attempt + 1}
        self.lines = Lines(began, place)

    def logged(self) -> dict[str, Any] | None:
        """Return what the body has logged and nobody has taken yet."""
        return None if self.lines is None else self.lines.taken()

    def complete(self, value: Any, started: datetime | None, **values: Any) -> Plan:
        """Record a result and return it as every replay will see it."""
        text = self.state.history.encode(value, self.name)
        memo = self.memo_as(
            StepStatus.COMPLETED,
            output=text,
            error=None,
            logs=self.logged(),
            due_at=None,
            started_at=started,
            ended_at=clock.now(),
            **values,
        )
        yield from self.write(memo)
        return serialization.loads(text)

    def write(self, memo: StepRecord) -> Plan:
        """Record the step."""
        self.memo = memo
        yield RecordStep(memo, self.place)

    def fail(
        self,
        record: Record,
        started: datetime | None,
        status: StepStatus = StepStatus.FAILED,
        **values: Any,
    ) -> Plan:
        """Record a failure and return the error to raise."""
        memo = self.memo_as(
            status,
            error=record,
            logs=self.logged(),
            due_at=None,
            started_at=started,
            ended_at=clock.now(),
            **values,
        )
        yield from self.write(memo)
        return rebuild(record, self.name, self.key)

    def fail_with(self, kind: str, message: str, started: datetime | None) -> Plan:
        """Record a failure of the engine's own making and return the error to raise."""
        record = {"type": kind, "message": message, "raise": kind}
        return (yield from self.fail(record, started))


def answer(memo: StepRecord) -> Any:
    """Return what an ended step gave, or raise what it raised."""
    if memo.status in (StepStatus.FAILED, StepStatus.CANCELLED):
        raise rebuild(memo.error or {}, memo.name, memo.key)
    return None if memo.output is None else serialization.loads(memo.output)


__all__ = [
    "BodyOutcome",
    "CallBody",
    "CallBranch",
    "Effect",
    "Plan",
    "RecordStep",
    "RunBranches",
    "StepCall",
    "answer",
    "describe",
]
