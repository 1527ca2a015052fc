"""When a parallel step succeeds, and when a polled condition is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from durable_jobs.exceptions import ConfigurationError


@dataclass(frozen=True)
class All:
    """Every branch must succeed."""


@dataclass(frozen=True)
class First:
    """The first branch that succeeds is enough. The other branches are cancelled."""


@dataclass(frozen=True)
class AtLeast:
    """``n`` branches must succeed. Then the other branches are cancelled."""

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
        """Return how many of ``total`` branches may fail, by the stricter limit."""
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
    """The return value of a ``wait_for_condition`` check that is done."""

    value: Any = None
