"""Declarations of flow control: the limits of a function and their keys.

A key is an expression over ``event``. Runs with equal keys share a limit, and null is a
key like any other. Each declaration is checked when it is created.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from durable_jobs.durations import parse_duration
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.expressions import Expression, compile_expression

if TYPE_CHECKING:
    from durable_jobs.types import Duration

Key = str | Callable[..., Any]
#: A number, or a callable that takes the key's value. The callable is evaluated again
#: every ten seconds, so a limit can come from your project's database.
DeclaredLimit = int | Callable[[Any], int]

LONGEST = timedelta(days=366)
MAX_CONCURRENCY = 2
MAX_BATCH = 1000

PRIORITY_OR_ORDERING = (
    "Expected priority or ordering, not both: a strict order allows no exceptions."
)


class _Keyed:
    """A limit with an optional key."""

    key: Key | None

    @functools.cached_property
    def expression(self) -> Expression | None:
        """The compiled ``key``."""
        if self.key is None:
            return None
        return compile_expression(self.key, where=f"{type(self).__name__} key")


@dataclass(frozen=True)
class Concurrency(_Keyed):
    """At most ``limit`` runs or steps at the same time, for each key.

    ``of="steps"`` counts executing steps: a run that sleeps or waits holds no slot.
    ``of="runs"`` counts runs from their first step to their end. With
    ``scope="account"``, functions with the same key share the slots. Each function
    compares the number of used slots with its own limit.
    """

    limit: DeclaredLimit
    key: Key | None = None
    scope: Literal["function", "account"] = "function"
    of: Literal["steps", "runs"] = "steps"

    def __post_init__(self) -> None:
        _check_limit(self.limit, "Concurrency")
        _check_choice(self.scope, ("function", "account"), "Concurrency scope")
        _check_choice(self.of, ("steps", "runs"), "Concurrency of")
        if self.scope == "account" and self.key is None:
            msg = "Expected a key in Concurrency with scope 'account'."
            raise ConfigurationError(msg)


@dataclass(frozen=True)
class Throttle(_Keyed):
    """Start runs at a rate of ``limit`` per ``per``. Runs above the rate wait.

    ``burst`` runs may start at once, then one run every ``per / limit``. The algorithm
    is GCRA, the generic cell rate algorithm of ITU-T I.371.
    """

    limit: DeclaredLimit
    per: Duration
    key: Key | None = None
    burst: int = 1

    def __post_init__(self) -> None:
        _check_limit(self.limit, "Throttle")
        _check_period(self.per, "Throttle per")
        _check_count(self.burst, "Throttle burst")

    @functools.cached_property
    def period(self) -> timedelta:
        """``per`` as a timedelta."""
        return parse_duration(self.per)

    def interval(self, limit: int) -> timedelta:
        """Return the time between two starts, rounded up."""
        return timedelta(microseconds=-(-self.period // (timedelta.resolution * limit)))


@dataclass(frozen=True)
class RateLimit(_Keyed):
    """Accept ``limit`` runs in any window of ``per``. Runs above the limit are skipped.

    A skipped run is recorded with the reason and the time of the next free place.
    """

    limit: DeclaredLimit
    per: Duration
    key: Key | None = None

    def __post_init__(self) -> None:
        _check_limit(self.limit, "RateLimit")
        _check_period(self.per, "RateLimit per")

    @functools.cached_property
    def period(self) -> timedelta:
        """``per`` as a timedelta."""
        return parse_duration(self.per)


@dataclass(frozen=True)
class Debounce(_Keyed):
    """Start one run when no event has arrived for ``period``.

    The run gets the latest event (by ``ts``). With ``collect``, ``ctx.events`` holds
    all buffered events, up to the setting ``MAX_EVENTS``. ``timeout`` limits how long
    the first event waits.
    """

    period: Duration
    key: Key | None = None
    timeout: Duration | None = None
    collect: bool = False

    def __post_init__(self) -> None:
        quiet = _check_period(self.period, "Debounce period")
        if self.timeout is not None:
            longest = _check_period(self.timeout, "Debounce timeout")
            if longest < quiet:
                msg = (
                    f"Expected a Debounce timeout of at least its period, got "
                    f"{self.timeout!r} and {self.period!r}."
                )
                raise ConfigurationError(msg)
        if not isinstance(self.collect, bool):
            msg = (
                f"Expected Debounce collect to be True or False, got {self.collect!r}."
            )
            raise ConfigurationError(msg)


@dataclass(frozen=True)
class Batch(_Keyed):
    """Start one run for up to ``max_size`` events. ``ctx.events`` holds the batch.

    A batch that is not full starts ``timeout`` after its first event. An event for
    which ``if_`` is false starts its own run.
    """

    max_size: int
    timeout: Duration
    key: Key | None = None
    if_: Key | None = None

    def __post_init__(self) -> None:
        _check_count(self.max_size, "Batch max_size", most=MAX_BATCH)
        _check_period(self.timeout, "Batch timeout")

    @functools.cached_property
    def condition(self) -> Expression | None:
        """The compiled ``if_``."""
        if self.if_ is None:
            return None
        return compile_expression(self.if_, where="Batch if_", condition=True)


@dataclass(frozen=True)
class BatchFailures:
    """The return value of a batch function that failed for some of its events.

    These events are retried in new batches, by the function's backoff and retries. If
    the retries are used up, the run fails.
    """

    ids: Iterable[str]

    def __post_init__(self) -> None:
        several = isinstance(self.ids, Iterable) and not isinstance(self.ids, str)
        ids = tuple(self.ids) if several else (None,)
        if not all(isinstance(each, str) for each in ids):
            msg = f"Expected BatchFailures([event ids]), got {self.ids!r:.80}."
            raise ConfigurationError(msg)
        object.__setattr__(self, "ids", ids)


@dataclass(frozen=True)
class Singleton(_Keyed):
    """At most one live run for each key.

    The next run is recorded as skipped (``"skip"``), cancels the live run
    (``"cancel"``), or waits for its end (``"queue"``).
    """

    key: Key | None = None
    mode: Literal["skip", "cancel", "queue"] = "skip"

    def __post_init__(self) -> None:
        _check_choice(self.mode, ("skip", "cancel", "queue"), "Singleton mode")


@dataclass(frozen=True, kw_only=True)
class FlowControl:
    """The flow control of one function."""

    concurrency: tuple[Concurrency, ...] = ()
    throttle: Throttle | None = None
    rate_limit: RateLimit | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    singleton: Singleton | None = None
    priority: Expression | None = None
    ordering: Expression | None = None
    idempotency: Expression | None = None

    def __post_init__(self) -> None:
        for first, second, reason in self._contradictions():
            if first and second:
                raise ConfigurationError(reason)

    def _contradictions(self) -> Iterable[tuple[object, object, str]]:
        yield self.batch, self.debounce, "Expected batch or debounce, not both."
        yield self.priority, self.ordering, PRIORITY_OR_ORDERING
        yield (
            self.singleton,
            self.ordering,
            "Expected singleton or ordering, not both: ordering already has one live "
            "run for each key.",
        )
        shared = {(one.scope, one.key, one.of) for one in self.concurrency}
        yield (
            len(shared) < len(self.concurrency),
            True,
            "Expected two concurrency limits to differ in their key, scope or of.",
        )

    @property
    def buffering(self) -> Debounce | Batch | None:
        """The debounce or batch that buffers events before a run starts."""
        return self.debounce or self.batch

    @property
    def expressions(self) -> list[Expression]:
        """All expressions that are evaluated over the event."""
        rules = (
            *self.concurrency,
            self.throttle,
            self.rate_limit,
            self.debounce,
            self.batch,
            self.singleton,
        )
        found = [rule.expression for rule in rules if rule is not None]
        found += [self.priority, self.ordering, self.idempotency]
        return [each for each in found if each is not None]

    @functools.cached_property
    def needs_admission(self) -> bool:
        """Whether runs pass through admission before they can be claimed."""
        return bool(
            self.concurrency
            or self.throttle
            or self.rate_limit
            or self.singleton
            or self.ordering
        )


def compile_flow_control(**declared: Any) -> FlowControl:
    """Return the flow control of a declaration, with all expressions compiled."""
    several = declared.pop("concurrency")
    found: dict[str, Any] = {"concurrency": _concurrency(several)}
    for name, kind in _KINDS.items():
        found[name] = _one(declared.pop(name), kind, name)
    for name, key in declared.items():
        if key is not None:
            found[name] = compile_expression(key, where=name)
    made = FlowControl(**found)
    for one in (*made.concurrency, *(found[name] for name in _KINDS)):
        if one is not None:
            _ = one.expression
    if made.batch is not None:
        _ = made.batch.condition
    return made


_KINDS = {
    "throttle": Throttle,
    "rate_limit": RateLimit,
    "debounce": Debounce,
    "batch": Batch,
    "singleton": Singleton,
}


def _concurrency(value: Any) -> tuple[Concurrency, ...]:
    if value is None:
        return ()
    if isinstance(value, Concurrency):
        return (value,)
    if isinstance(value, int) and not isinstance(value, bool):
        return (Concurrency(value),)
    items = value if isinstance(value, list | tuple) else [value]
    if len(items) > MAX_CONCURRENCY:
        msg = f"Expected at most {MAX_CONCURRENCY} in concurrency, got {len(items)}."
        raise ConfigurationError(msg)
    return tuple(_one(item, Concurrency, "concurrency") for item in items)


def _one(value: Any, kind: type[Any], name: str) -> Any:
    if value is None or isinstance(value, kind):
        return value
    msg = f"Expected durable.{kind.__name__} in {name}, got {value!r:.80}."
    raise ConfigurationError(msg)


def _check_limit(limit: Any, what: str) -> None:
    if callable(limit):
        return
    _check_count(limit, f"{what} limit")


def _check_count(value: Any, what: str, most: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (most is not None and value > most):
        bounds = "of 1 or more" if most is None else f"from 1 to {most}"
        msg = f"Expected {what} to be a whole number {bounds}, got {value!r:.80}."
        raise ConfigurationError(msg)


def _check_period(value: Any, what: str) -> timedelta:
    length = parse_duration(value, what=what)
    if not timedelta() < length <= LONGEST:
        msg = f"Expected {what} to be longer than zero and at most 366 days: {value!r}."
        raise ConfigurationError(msg)
    return length


def _check_choice(value: Any, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        choices = " or ".join(repr(choice) for choice in known)
        msg = f"Expected {what} to be {choices}, got {value!r:.80}."
        raise ConfigurationError(msg)


__all__ = [
    "Batch",
    "BatchFailures",
    "Concurrency",
    "Debounce",
    "FlowControl",
    "RateLimit",
    "Singleton",
    "Throttle",
    "compile_flow_control",
]
