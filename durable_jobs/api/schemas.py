"""Request and response schemas of the API."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from ninja import Field, Schema
from pydantic import AfterValidator, AwareDatetime, ConfigDict, StringConstraints

from durable_jobs.api.filters import Filter
from durable_jobs.definitions.names import MAX_LENGTH
from durable_jobs.definitions.start_options import MAX_PRIORITY

MOST_ROWS = 200
LONGEST_REASON = 1000
#: Converting years near the ends of the calendar to another time zone overflows.
FIRST_YEAR, LAST_YEAR = 1970, 9000


def _storable(text: str) -> str:
    if "\x00" in text or _lone(text):
        msg = "a NUL or a lone surrogate cannot be stored"
        raise ValueError(msg)
    return text


def _lone(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _near(moment: datetime) -> datetime:
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        msg = f"expected a year from {FIRST_YEAR} to {LAST_YEAR}"
        raise ValueError(msg)
    return moment


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_LENGTH)]
Reason = Annotated[Text, StringConstraints(max_length=LONGEST_REASON)]
Moment = Annotated[AwareDatetime, AfterValidator(_near)]


class ProblemOut(Schema):
    """A problem (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, Any]] | None = None


class In(Schema):
    """The base of request schemas. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


class EventIn(In):
    """A new event."""

    name: Name
    data: dict[str, Any] | None = None
    id: Name | None = None
    ts: Moment | None = None
    user: Any = None
    v: Name | None = None


class Ids(Schema):
    """The ids of events, in the order in which they were sent."""

    ids: list[str]


class ReasonIn(In):
    """The reason of an action, shown to other users."""

    reason: Reason = ""


class RerunIn(ReasonIn):
    """How to rerun a run: from a step, or with other data."""

    from_step: Name | None = None
    data: dict[str, Any] | None = None


class AnswerIn(ReasonIn):
    """The result of a waiting step, by its key."""

    step: Name
    value: Any = None


class BulkIn(ReasonIn):
    """An action on all runs that match a filter."""

    action: Literal["cancel", "pause", "resume", "retry", "wake", "redrive", "rerun"]
    filter: Filter


class StartIn(In):
    """How to start a run. ``run_after`` is seconds, a duration, or a time."""

    data: dict[str, Any] | None = None
    key: Name | None = None
    run_after: float | Text | None = None
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0


class SignalIn(In):
    """The data of a signal."""

    data: Any = None


class SucceedIn(In):
    """The result of the work behind a callback."""

    data: Any = None


class FailIn(In):
    """Why the work behind a callback failed."""

    message: Text = ""
    error_type: Name = "CallbackFailed"


class RunOut(Schema):
    """A run, without its payloads."""

    model_config = ConfigDict(populate_by_name=True)

    id: UUID
    function: str
    version: str
    status: str
    reason: str
    trigger: str
    key: str
    event: str | None = Field(alias="event_id")
    parent: UUID | None = Field(alias="parent_id")
    parent_relation: str
    queue: str
    attempt: int
    claim_count: int
    crash_count: int = Field(alias="worker_losses")
    queued_at: datetime
    due_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class RunsOut(Schema):
    """A page of runs, the newest first, and the cursor of the next one."""

    runs: list[RunOut]
    next: str | None


class Hidden(Schema):
    """``hidden`` says that payloads are left out because you may not see them."""

    hidden: bool
    error: dict[str, Any] | None


class RunDetail(RunOut, Hidden):
    """A run with its payloads, as they are stored."""

    data: Any
    output: Any


class Result(Hidden):
    """The result of an ended run."""

    id: UUID
    status: str
    reason: str
    output: Any


class Pending(Schema):
    """A run that has not ended."""

    id: UUID
    status: str


class StepOut(Schema):
    """A step, without its payloads."""

    key: str
    name: str
    kind: str
    status: str
    attempt: int
    due_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


class TraceRow(StepOut):
    """A step in a timeline. ``offset`` and ``length`` are seconds."""

    depth: int
    offset: float | None
    length: float | None
    error: dict[str, Any] | None


class StepsOut(Schema):
    """The steps of a run, in recorded order."""

    steps: list[StepOut]


class TraceOut(Schema):
    """The steps of a run. Each step follows its parent step."""

    run: RunOut
    steps: list[TraceRow]


class LineOut(Schema):
    """A log line of a step's body."""

    at: datetime
    level: str
    logger: str
    message: str


class Logs(Schema):
    """The last log lines of a step's body. ``left_out`` counts the earlier ones."""

    lines: list[LineOut]
    left_out: int


class AttemptOut(Schema):
    """A failed attempt."""

    number: int
    error: dict[str, Any]
    logs: Logs | None
    started_at: datetime | None
    ended_at: datetime


class StepDetail(StepOut, Hidden):
    """A step with its payloads and its first failed attempts."""

    input: Any
    output: Any
    detail: Any
    logs: Logs | None
    attempts: list[AttemptOut]


class ActionOut(Schema):
    """A run after an action, and the new run, if any."""

    run: RunOut
    new_run: RunOut | None = None


class Job(Schema):
    """The run of a bulk action."""

    run: RunOut


class WokenRunOut(Schema):
    """The run that a signal woke, if any."""

    run: UUID | None


class FunctionOut(Schema):
    """A declared function."""

    id: str
    name: str
    description: str
    version: str
    queue: str
    retries: int
    triggers: list[dict[str, Any]]
    paused: bool


class FunctionsOut(Schema):
    """All declared functions, ordered by id."""

    functions: list[FunctionOut]


class ScheduleOut(Schema):
    """A schedule. ``jitter`` is in seconds."""

    id: int
    function: str
    name: str
    cron: str
    tz: str
    declared: bool
    catch_up: str
    overlap: str
    jitter: float | None
    owner_model: str
    owner_pk: str
    due_at: datetime | None
    last_fired_at: datetime | None
    last_run: UUID | None
    paused_at: datetime | None
    reason: str

    @staticmethod
    def resolve_jitter(schedule: Any) -> float | None:
        """Return the jitter in seconds."""
        return None if schedule.jitter is None else schedule.jitter.total_seconds()


class SchedulesOut(Schema):
    """A page of schedules, and the cursor of the next one."""

    schedules: list[ScheduleOut]
    next: str | None


class ScheduleDone(Schema):
    """A schedule after an action, and the started run, if any."""

    schedule: ScheduleOut
    run: UUID | None = None


class HealthOut(Schema):
    """Liveness of this process."""

    status: Literal["ok"]


class Cause(Schema):
    """A reason why runs are not processed."""

    check: str
    message: str


class Readiness(Schema):
    """Whether runs are processed, and why not."""

    status: Literal["ready", "not ready"]
    last_tick_seconds: float | None
    oldest_ready_seconds: float | None
    causes: list[Cause]


class Page(Schema):
    """The page of a list. ``cursor`` is the ``next`` of the previous page."""

    limit: Annotated[int, Field(ge=1, le=MOST_ROWS)] = 50
    cursor: Annotated[str, StringConstraints(max_length=100)] | None = None


class RunsQuery(Page):
    """The filters of runs. List parameters may be repeated."""

    status: list[str] = Field(default_factory=list)
    where: list[str] = Field(default_factory=list)
    function: str | None = None
    subject: str | None = None
    key: str | None = None
    event: str | None = None
    parent: str | None = None
    id: list[str] = Field(default_factory=list)
    q: str | None = None
    before: str | None = None
    trigger: str | None = None
    version: str | None = None
    queue: str | None = None
    worker: str | None = None
    time: str | None = None
    period: str | None = None
    since: str | None = None
    until: str | None = None
