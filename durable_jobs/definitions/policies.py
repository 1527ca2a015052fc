"""How parallel branches are counted, and what a step can wait for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from durable_jobs.definitions.names import check_event_name, check_name
from durable_jobs.definitions.triggers import compile_match_and_condition
from durable_jobs.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django.db.models import Model, Q


@dataclass(frozen=True)
class All:
    """Every branch must succeed."""


@dataclass(frozen=True)
class First:
    """The first branch that succeeds decides; the others are cancelled."""


@dataclass(frozen=True)
class AtLeast:
    """``n`` branches must succeed; the others are then cancelled."""

    n: int

    def __post_init__(self) -> None:
        if isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 1:
            msg = f"Expected AtLeast(n) with n of 1 or more, got {self.n!r:.80}."
            raise ConfigurationError(msg)


@dataclass(frozen=True)
class Tolerate:
    """Up to ``failures`` branches, or ``percent`` of all of them, may fail."""

    failures: int | None = None
    percent: float | None = None

    def __post_init__(self) -> None:
        if self.failures is None and self.percent is None:
            msg = "Expected Tolerate(failures=…) or Tolerate(percent=…)."
            raise ConfigurationError(msg)
        if self.failures is not None and not (
            _is_number(self.failures, int) and self.failures >= 0
        ):
            msg = f"Expected failures of 0 or more, got {self.failures!r:.80}."
            raise ConfigurationError(msg)
        if self.percent is not None and not (
            _is_number(self.percent, int, float) and 0 <= self.percent <= 100
        ):
            msg = f"Expected percent from 0 to 100, got {self.percent!r:.80}."
            raise ConfigurationError(msg)

    def allowed(self, total: int) -> float:
        """Return how many of ``total`` branches may fail: the stricter of the two."""
        bounds = []
        if self.failures is not None:
            bounds.append(float(self.failures))
        if self.percent is not None:
            bounds.append(total * self.percent / 100)
        return min(bounds)


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


Completion = All | First | AtLeast | Tolerate


@dataclass(frozen=True)
class Done:
    """What a condition's check returns when it is met."""

    value: Any = None


@dataclass(frozen=True)
class EventWait:
    """Wait for an event, as one of the alternatives of ``wait_for_any``."""

    event: str
    match: str | None = None
    if_: str | Callable[..., Any] | None = None
    since: str | None = None

    def __post_init__(self) -> None:
        where = f"a wait for {self.event!r:.80}"
        check_event_name(self.event, own=True)
        compile_match_and_condition(self.match, self.if_, where)
        if self.since not in (None, "run"):
            msg = f"{where}: expected since to be None or 'run', got {self.since!r}."
            raise ConfigurationError(msg)


@dataclass(frozen=True)
class SignalWait:
    """Wait for a signal, as one of the alternatives of ``wait_for_any``."""

    name: str
    on_conflict: str = "fail"

    def __post_init__(self) -> None:
        check_name(self.name, "a signal name")
        if self.on_conflict not in ("fail", "replace"):
            msg = (
                f"Expected on_conflict to be 'fail' or 'replace', "
                f"got {self.on_conflict!r}."
            )
            raise ConfigurationError(msg)


@dataclass(frozen=True)
class ModelWait:
    """Wait until a model instance meets a condition (``when``: a ``Q``)."""

    instance: Model
    when: Q

    def __post_init__(self) -> None:
        from django.db.models import Model, Q

        if not isinstance(self.instance, Model) or self.instance.pk is None:
            msg = f"Expected a saved model instance, got {self.instance!r:.80}."
            raise ConfigurationError(msg)
        if not isinstance(self.when, Q):
            msg = f"Expected when to be a Q, got {self.when!r:.80}."
            raise ConfigurationError(msg)


AnyWait = EventWait | SignalWait | ModelWait
