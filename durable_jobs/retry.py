"""Backoff: how long to wait before a failed attempt is retried."""

from __future__ import annotations

import inspect
import math
import random as _random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durable_jobs.control_flow import reraise_control
from durable_jobs.durations import Duration, parse_duration
from durable_jobs.error_text import summary_of
from durable_jobs.exceptions import ConfigurationError

#: The longest delay. Longer delays are shortened to this.
LONGEST_DELAY = timedelta(days=366)

BackoffFunction = Callable[[int, BaseException | None], Duration]


@dataclass(frozen=True)
class Backoff(ABC):
    """The delays between attempts. Create one with the class methods."""

    @classmethod
    def exponential(
        cls,
        initial: Duration = "15s",
        factor: float = 2,
        max: Duration = "2h",
        jitter: Duration = "30s",
    ) -> Backoff:
        """Multiply the delay by ``factor`` after each attempt, up to ``max``.

        A random time of up to ``jitter`` is added, even to ``max``.
        """
        if not _is_number(factor) or not math.isfinite(factor) or factor < 1:
            raise ConfigurationError(
                f"The backoff's factor is {factor!r}: expected a number of 1 or more."
            )
        return _Growing(
            initial=parse_duration(initial, what="backoff's initial delay"),
            factor=float(factor),
            step=timedelta(0),
            longest=parse_duration(max, what="backoff's max"),
            jitter=parse_duration(jitter, what="backoff's jitter"),
        )

    @classmethod
    def fixed(cls, delay: Duration, jitter: Duration = 0) -> Backoff:
        """Wait for ``delay`` each time, plus a random time of up to ``jitter``."""
        initial = parse_duration(delay, what="backoff's delay")
        return _Growing(
            initial=initial,
            factor=1.0,
            step=timedelta(0),
            longest=initial,
            jitter=parse_duration(jitter, what="backoff's jitter"),
        )

    @classmethod
    def linear(
        cls,
        initial: Duration = "15s",
        step: Duration = "15s",
        max: Duration = "2h",
        jitter: Duration = "30s",
    ) -> Backoff:
        """Add ``step`` to the delay after each attempt, up to ``max``.

        A random time of up to ``jitter`` is added, even to ``max``.
        """
        return _Growing(
            initial=parse_duration(initial, what="backoff's initial delay"),
            factor=1.0,
            step=parse_duration(step, what="backoff's step"),
            longest=parse_duration(max, what="backoff's max"),
            jitter=parse_duration(jitter, what="backoff's jitter"),
        )

    @abstractmethod
    def delay(
        self,
        attempt: int,
        error: BaseException | None,
        *,
        random: Callable[[], float] = _random.random,
    ) -> timedelta:
        """Return the time to wait after an attempt failed.

        ``attempt`` counts from 0. ``error`` is the exception of the attempt. ``random``
        returns numbers from 0 to 1. The result is between zero (retry at once) and
        ``LONGEST_DELAY``.
        """


def as_backoff(value: Any) -> Backoff:
    """Return a ``Backoff`` for a ``Backoff`` or a callable ``(attempt, error)``.

    The callable returns a duration. Raise ``ConfigurationError`` for other values, or
    for a callable with other parameters. If the callable fails or returns no duration,
    ``delay`` raises ``ConfigurationError``.
    """
    if isinstance(value, Backoff):
        return value
    if not callable(value) or isinstance(value, type):
        raise ConfigurationError(
            f"The backoff is {value!r}: expected durable.Backoff.exponential(), "
            ".fixed(), .linear(), or a callable (attempt, error) returning a duration."
        )
    if inspect.iscoroutinefunction(value):
        raise ConfigurationError(
            f"The backoff {_name(value)} is async: expected a plain callable."
        )
    try:
        inspect.signature(value).bind(0, None)
    except TypeError as error:
        raise ConfigurationError(
            f"The backoff {_name(value)} cannot be called with (attempt, error): "
            f"{error}."
        ) from None
    except ValueError:
        pass  # a builtin without a signature: its first call shows errors
    return _Custom(function=value)


@dataclass(frozen=True, kw_only=True)
class _Growing(Backoff):
    """Delays that grow by a factor and a step."""

    initial: timedelta
    factor: float
    step: timedelta
    longest: timedelta
    jitter: timedelta

    def __post_init__(self) -> None:
        if self.longest < self.initial:
            raise ConfigurationError(
                f"The backoff's max is {self.longest}: expected no less than its "
                f"initial delay, {self.initial}."
            )

    def delay(
        self,
        attempt: int,
        error: BaseException | None,
        *,
        random: Callable[[], float] = _random.random,
    ) -> timedelta:
        return min(
            self._grown(attempt) + self.jitter * min(max(random(), 0.0), 1.0),
            LONGEST_DELAY,
        )

    def _grown(self, attempt: int) -> timedelta:
        limit = min(self.longest, LONGEST_DELAY)
        try:
            grown = self.initial * self.factor**attempt + self.step * attempt
        except OverflowError:
            return limit if self.initial or self.step else timedelta(0)
        return min(grown, limit)


@dataclass(frozen=True, kw_only=True)
class _Custom(Backoff):
    """Delays that a function of your project returns."""

    function: BackoffFunction

    def delay(
        self,
        attempt: int,
        error: BaseException | None,
        *,
        random: Callable[[], float] = _random.random,
    ) -> timedelta:
        name = _name(self.function)
        try:
            value = self.function(attempt, error)
        except BaseException as failure:
            reraise_control(failure)
            raise ConfigurationError(
                f"The backoff {name} failed after attempt {attempt}: "
                f"{summary_of(failure)}"
            ) from failure
        what = f"delay that the backoff {name} returned after attempt {attempt}"
        return min(parse_duration(value, what=what), LONGEST_DELAY)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


#: What declarations accept as a backoff.
BackoffLike = Backoff | BackoffFunction
