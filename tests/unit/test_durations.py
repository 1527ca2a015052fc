"""Durations as people write them."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.durations import format_duration, parse_duration
from durable_jobs.exceptions import ConfigurationError


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("300ms", timedelta(milliseconds=300)),
        ("30s", timedelta(seconds=30)),
        ("5m", timedelta(minutes=5)),
        ("2h45m", timedelta(hours=2, minutes=45)),
        ("1d", timedelta(days=1)),
        ("2w", timedelta(weeks=2)),
        ("1w2d3h4m5s6ms", timedelta(7 + 2, 5, 0, 6, 4, 3)),
        ("1.5h", timedelta(minutes=90)),
        ("0s", timedelta(0)),
        ("0.1s", timedelta(milliseconds=100)),
        (90, timedelta(seconds=90)),
        (0.25, timedelta(milliseconds=250)),
        (0, timedelta(0)),
        (timedelta(days=3), timedelta(days=3)),
    ],
)
def test_reads_every_form(written: Any, meant: timedelta) -> None:
    assert parse_duration(written) == meant


@pytest.mark.parametrize(
    "written",
    [
        "", " ", "5", "s", "5 m", "5x", "5M", "-5s", "+5s", "5s5m", "1h1h", "1e3s",
        ".5h", "1.s", "5ms3s", "٣s", "5s\n", "9" * 100 + "s",
        "9999999999w", True, False,
        None, [], b"5s", float("nan"), float("inf"), -float("inf"), -1, -0.5, 1e300,
        10**400, timedelta(seconds=-1), 1j,
    ],
)  # fmt: skip
def test_invalid_duration_is_refused_with_what_was_expected(written: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"timeout.*expected"):
        parse_duration(written, what="timeout")


def test_refusal_shows_a_truncated_value() -> None:
    with pytest.raises(ConfigurationError, match="'5 minutes'"):
        parse_duration("5 minutes")
    with pytest.raises(ConfigurationError) as caught:
        parse_duration("x" * 10_000)
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(hours=2, minutes=45), "2h45m"),
        (timedelta(milliseconds=300), "300ms"),
        (timedelta(microseconds=1500), "1.5ms"),
        (timedelta(seconds=1, milliseconds=500), "1.5s"),
        (timedelta(weeks=2), "2w"),
        (timedelta(days=10), "10d"),
        (timedelta(0), "0s"),
        (timedelta(minutes=-5), "-5m"),
    ],
)
def test_writes_the_short_form(value: timedelta, text: str) -> None:
    assert format_duration(value) == text


@given(st.timedeltas(min_value=timedelta(0)))
def test_duration_round_trips(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


@given(st.text(max_size=20))
def test_any_string_is_parsed_or_refused(text: str) -> None:
    with suppress(ConfigurationError):
        assert parse_duration(text) >= timedelta(0)


def test_thing_with_an_article_begins_the_sentence_once():
    with pytest.raises(ConfigurationError, match=r"^The sleep of step 'x' is 'soon': "):
        parse_duration("soon", what="the sleep of step 'x'")
    with pytest.raises(ConfigurationError, match=r"^The setting LEASE is -1: "):
        parse_duration(-1, what="setting LEASE")
