"""Operations: the frozen description of a step that a function calls.

An operation is checked when it is created, so an invalid call fails at its own line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from durable_jobs.definitions.completion import (
    All,
    AtLeast,
    Completion,
    First,
    Tolerate,
)
from durable_jobs.definitions.events import NewEvent, check_mapping, check_moment
from durable_jobs.definitions.names import check_name
from durable_jobs.definitions.wait_alternatives import (
    AnyWait,
    EventWait,
    ModelWait,
    SignalWait,
)
from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.retry import BackoffLike, as_backoff

if TYPE_CHECKING:
    from durable_jobs.definitions.function import Function
    from durable_jobs.types import Duration

LONGEST = timedelta(days=366)
MAX_RETRIES = 20


def check_length(value: Duration, what: str) -> timedelta:
    """Return ``value`` as a timedelta of at most 366 days."""
    length = parse_duration(value, what=what)
    if length > LONGEST:
        msg = f"Expected {what} of at most 366 days, got {value!r}."
        raise ConfigurationError(msg)
    return length


def check_retries(value: object, where: str) -> int:
    """Return ``value`` if it is a whole number from 0 to 20."""
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"{where}: expected retries to be a whole number, got {value!r:.80}."
        raise ConfigurationError(msg)
    if not 0 <= value <= MAX_RETRIES:
        msg = f"{where}: expected retries from 0 to {MAX_RETRIES}, got {value}."
        raise ConfigurationError(msg)
    return value


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step, as the function calls it."""

    kind: ClassVar[str]
    id: str

    def __post_init__(self) -> None:
        check_name(self.id, "a step id")


@dataclass(frozen=True, kw_only=True)
class Timed(Operation):
    """A step with an optional ``timeout``."""

    timeout: Duration | None = None
    limit: timedelta | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timeout is not None:
            limit = check_length(self.timeout, f"the timeout of step {self.id!r}")
            object.__setattr__(self, "limit", limit)


@dataclass(frozen=True, kw_only=True)
class RunStep(Timed):
    """Call ``fn`` and record its result."""

    kind: ClassVar[str] = "run"
    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    retries: int | None = None
    backoff: BackoffLike | None = None
    retry_on: type[BaseException] | tuple[type[BaseException], ...] | None = None
    at_most_once: bool = False
    queue: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"step {self.id!r}"
        check_callable(self.fn, where)
        if self.retries is not None:
            check_retries(self.retries, where)
        if self.backoff is not None:
            as_backoff(self.backoff)
        if self.retry_on is not None:
            check_errors(self.retry_on, where)
        if self.queue is not None:
            check_name(self.queue, "a queue name")
        if self.limit is not None and self.limit <= timedelta():
            msg = f"{where}: expected a timeout longer than zero, got {self.timeout!r}."
            raise ConfigurationError(msg)
        if self.at_most_once and self.retries:
            msg = f"{where}: a body that runs at most once cannot be retried."
            raise ConfigurationError(msg)


@dataclass(frozen=True, kw_only=True)
class Atomic(Operation):
    """Call ``fn`` and record its result in one database transaction."""

    kind: ClassVar[str] = "atomic"
    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    using: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_callable(self.fn, f"step {self.id!r}")


@dataclass(frozen=True, kw_only=True)
class Sleep(Operation):
    """Continue after ``length``, or at ``until``."""

    kind: ClassVar[str] = "sleep"
    length: timedelta | None = None
    until: datetime | None = None

    @classmethod
    def lasting(cls, id: str, duration: Duration) -> Sleep:
        """Return a sleep of this duration."""
        return cls(id=id, length=check_length(duration, f"the sleep of step {id!r}"))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_moment(self.until, f"the end of step {self.id!r}")
        if (self.length is None) == (self.until is None):
            msg = f"step {self.id!r}: expected a duration or an aware datetime."
            raise ConfigurationError(msg)


@dataclass(frozen=True, kw_only=True)
class WaitForEvent(Timed):
    """Wait for an event."""

    kind: ClassVar[str] = "wait_for_event"
    wait: EventWait


@dataclass(frozen=True, kw_only=True)
class WaitForSignal(Timed):
    """Wait for a signal."""

    kind: ClassVar[str] = "wait_for_signal"
    wait: SignalWait


@dataclass(frozen=True, kw_only=True)
class WaitForModel(Timed):
    """Wait until a model instance meets a condition."""

    kind: ClassVar[str] = "wait_for_model"
    wait: ModelWait


@dataclass(frozen=True, kw_only=True)
class WaitForAny(Timed):
    """Wait for the first of several events, signals or model changes."""

    kind: ClassVar[str] = "wait_for_any"
    waits: Mapping[str, AnyWait]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.waits or not all(
            isinstance(wait, EventWait | SignalWait | ModelWait)
            for wait in self.waits.values()
        ):
            msg = (
                f"step {self.id!r}: expected a dict of EventWait, SignalWait or "
                f"ModelWait, got {self.waits!r:.80}."
            )
            raise ConfigurationError(msg)
        for name in self.waits:
            check_name(name, "the name of a wait")
        signals = [w.name for w in self.waits.values() if isinstance(w, SignalWait)]
        if len(signals) != len(set(signals)):
            msg = f"step {self.id!r}: expected each signal once, got {signals!r:.80}."
            raise ConfigurationError(msg)


@dataclass(frozen=True, kw_only=True)
class WaitForCallback(Timed):
    """Wait until an outside system answers a callback."""

    kind: ClassVar[str] = "wait_for_callback"
    submit: Callable[..., Any] | None = None
    heartbeat: Duration | None = None
    beat: timedelta | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.submit is not None:
            check_callable(self.submit, f"step {self.id!r}")
        if self.heartbeat is not None:
            beat = check_length(self.heartbeat, f"the heartbeat of step {self.id!r}")
            if not beat:
                msg = f"step {self.id!r}: expected a heartbeat longer than zero."
                raise ConfigurationError(msg)
            object.__setattr__(self, "beat", beat)


@dataclass(frozen=True, kw_only=True)
class WaitForCondition(Timed):
    """Call ``check`` repeatedly until it returns ``Done``."""

    kind: ClassVar[str] = "wait_for_condition"
    check: Callable[[Any], Any]
    every: Duration | None = None
    backoff: BackoffLike | None = None
    initial: Any = None
    max_attempts: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"step {self.id!r}"
        check_callable(self.check, where)
        if (self.every is None) == (self.backoff is None):
            msg = f"{where}: expected one of every= or backoff=."
            raise ConfigurationError(msg)
        if self.every is not None:
            check_length(self.every, f"{where}: every")
        else:
            as_backoff(self.backoff)
        if self.max_attempts is not None and self.max_attempts < 1:
            msg = f"{where}: expected max_attempts of 1 or more."
            raise ConfigurationError(msg)


@dataclass(frozen=True, kw_only=True)
class Invoke(Timed):
    """Run another function and wait for its result."""

    kind: ClassVar[str] = "invoke"
    function: Function | str
    data: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_function(self.function, f"step {self.id!r}")
        check_mapping(self.data, f"the data of step {self.id!r}")


@dataclass(frozen=True, kw_only=True)
class StartRun(Operation):
    """Start another function without waiting."""

    kind: ClassVar[str] = "start"
    function: Function | str
    data: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_function(self.function, f"step {self.id!r}")
        check_mapping(self.data, f"the data of step {self.id!r}")


@dataclass(frozen=True, kw_only=True)
class SendEvent(Operation):
    """Send events exactly once."""

    kind: ClassVar[str] = "send_event"
    events: tuple[NewEvent, ...]
    single: bool

    @classmethod
    def of(cls, id: str, events: NewEvent | Iterable[NewEvent]) -> SendEvent:
        """Return an operation that sends one event or several."""
        single = isinstance(events, NewEvent)
        batch = (events,) if isinstance(events, NewEvent) else tuple(events)
        for event in batch:
            if not isinstance(event, NewEvent):
                msg = f"step {id!r}: expected durable.NewEvent, got {event!r:.80}."
                raise ConfigurationError(msg)
        return cls(id=id, events=batch, single=single)

    def __post_init__(self) -> None:
        super().__post_init__()
        for event in self.events:
            event.checked()


@dataclass(frozen=True, kw_only=True)
class Parallel(Operation):
    """Run branches concurrently, each with its own steps."""

    kind: ClassVar[str] = "parallel"
    branches: tuple[tuple[str, Callable[[], Any]], ...]
    named: bool = False
    max_concurrency: int | None = None
    completion: Completion = field(default_factory=All)
    return_exceptions: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        where = f"step {self.id!r}"
        for _, branch in self.branches:
            check_callable(branch, where)
        if self.max_concurrency is not None:
            check_count(self.max_concurrency, f"{where}: expected max_concurrency")
        policy = self.completion
        if not isinstance(policy, All | First | AtLeast | Tolerate):
            msg = (
                f"{where}: expected All(), First(), AtLeast(n) or Tolerate(…), "
                f"got {policy!r:.80}."
            )
            raise ConfigurationError(msg)
        if isinstance(policy, AtLeast) and policy.n > len(self.branches):
            msg = (
                f"{where}: at least {policy.n} of {len(self.branches)} branches "
                f"cannot succeed."
            )
            raise ConfigurationError(msg)
        if isinstance(policy, First) and not self.branches:
            msg = f"{where}: expected at least one branch with First()."
            raise ConfigurationError(msg)


@dataclass(frozen=True, kw_only=True)
class Map(Parallel):
    """Call one function for each item, each call with its own steps."""

    kind: ClassVar[str] = "map"


def check_callable(fn: object, where: str) -> None:
    """Raise ``ConfigurationError`` unless ``fn`` is callable."""
    if not callable(fn):
        msg = (
            f"{where}: expected a callable, got {fn!r:.80}. Pass the function, not its "
            f"result."
        )
        raise ConfigurationError(msg)


def check_count(value: object, expected: str) -> None:
    """Raise ``ConfigurationError`` unless ``value`` is a whole number of 1 or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        msg = f"{expected} of 1 or more, got {value!r:.80}."
        raise ConfigurationError(msg)


def check_errors(value: object, where: str) -> None:
    """Raise ``ConfigurationError`` unless ``value`` is one or several exceptions."""
    classes = value if isinstance(value, tuple) else (value,)
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            msg = (
                f"{where}: expected retry_on to be an exception class or a tuple of "
                f"them, got {value!r:.80}."
            )
            raise ConfigurationError(msg)


def check_function(value: object, where: str) -> None:
    """Raise ``ConfigurationError`` unless ``value`` is a durable function or an id."""
    from durable_jobs.definitions.function import Function

    if not isinstance(value, str | Function):
        msg = f"{where}: expected a durable function or its id, got {value!r:.80}."
        raise ConfigurationError(msg)
