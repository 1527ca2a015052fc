"""The delays between attempts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.exceptions import ConfigurationError
from durable_jobs.retry import LONGEST_DELAY, Backoff, as_backoff

ERROR = ValueError("it broke")


def never() -> float:
    return 0.0


def seconds(backoff: Backoff, attempts: int) -> list[float]:
    return [
        backoff.delay(attempt, ERROR, random=never).total_seconds()
        for attempt in range(attempts)
    ]


def test_exponential_doubles_from_fifteen_seconds_to_two_hours() -> None:
    assert seconds(Backoff.exponential(), 4) == [15, 30, 60, 120]
    assert seconds(Backoff.exponential(), 20)[-1] == 7200


def test_exponential_takes_any_factor_and_durations() -> None:
    assert seconds(Backoff.exponential("1s", 1.5, "3s"), 4) == [1, 1.5, 2.25, 3]


def test_linear_adds_a_step_up_to_the_maximum() -> None:
    assert seconds(Backoff.linear("10s", "5s", "22s"), 4) == [10, 15, 20, 22]


def test_fixed_stays() -> None:
    assert seconds(Backoff.fixed(7), 3) == [7, 7, 7]
    assert seconds(Backoff.fixed(0), 1) == [0]


def test_jitter_adds_up_to_its_whole_length() -> None:
    backoff = Backoff.exponential(jitter="30s")
    assert backoff.delay(0, ERROR, random=lambda: 0.5) == timedelta(seconds=30)
    assert backoff.delay(0, ERROR, random=lambda: 1.0) == timedelta(seconds=45)
    assert backoff.delay(0, ERROR) >= timedelta(seconds=15)


def test_backoffs_of_the_same_numbers_are_equal() -> None:
    assert Backoff.exponential() == Backoff.exponential(initial=15)
    assert Backoff.exponential() != Backoff.fixed(15)


@given(
    attempt=st.integers(0, 10_000),
    factor=st.floats(1, 1e6),
    initial=st.timedeltas(timedelta(0), timedelta(days=4000)),
    chance=st.floats(0, 1),
)
def test_delay_is_never_negative_and_never_longer_than_366_days(
    attempt: int, factor: float, initial: timedelta, chance: float
) -> None:
    backoff = Backoff.exponential(initial, factor, timedelta(days=5000), "9000d")
    delay = backoff.delay(attempt, ERROR, random=lambda: chance)
    assert timedelta(0) <= delay <= LONGEST_DELAY


@pytest.mark.parametrize("factor", [0, 0.5, -1, float("nan"), float("inf"), "2", True])
def test_wrong_factor_is_refused(factor: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"factor.*expected"):
        Backoff.exponential(factor=factor)


def test_maximum_below_the_start_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"max.*expected"):
        Backoff.exponential(initial="1h", max="1m")


@pytest.mark.parametrize("name", ["initial", "max", "jitter"])
def test_wrong_duration_is_refused_by_name(name: str) -> None:
    arguments: dict[str, Any] = {name: "soon"}
    with pytest.raises(ConfigurationError, match=f"{name}.*'soon'.*expected"):
        Backoff.exponential(**arguments)


def test_callable_decides_by_attempt_and_error() -> None:
    def rule(attempt: int, error: BaseException | None) -> str:
        return f"{attempt + 1}m" if error is ERROR else "0s"

    assert as_backoff(rule).delay(2, ERROR) == timedelta(minutes=3)
    assert as_backoff(rule).delay(2, None) == timedelta(0)
    assert as_backoff(lambda *a: "9000d").delay(0, ERROR) == LONGEST_DELAY


def test_backoff_is_given_back() -> None:
    backoff = Backoff.fixed(1)
    assert as_backoff(backoff) is backoff


async def waits(attempt: int, error: BaseException) -> int:
    return 1


@pytest.mark.parametrize(
    "value",
    [None, 5, "5s", timedelta(5), lambda: 1, lambda attempt: 1, int, waits],
    ids=range(8),
)
def test_invalid_backoff_is_refused_on_declaration(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"backoff .*(expected|cannot)"):
        as_backoff(value)


@pytest.mark.parametrize(
    "rule",
    [lambda attempt, error: None, lambda attempt, error: -1, lambda a, e: 1 / 0],
    ids=["None", "negative", "raises"],
)
def test_callable_that_returns_no_duration_is_named(rule: Callable[..., Any]) -> None:
    backoff = as_backoff(rule)
    with pytest.raises(ConfigurationError, match=r"<lambda>.*after attempt 3"):
        backoff.delay(3, ERROR)
