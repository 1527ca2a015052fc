"""The settings and their validation."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from durable_jobs.conf import Rate, problems
from durable_jobs.conf import settings as conf
from durable_jobs.exceptions import ConfigurationError


@pytest.fixture
def nothing_set(settings: Settings) -> Settings:
    settings.DURABLE_JOBS = {}
    return settings


def test_settings_all_have_a_default(nothing_set: Settings) -> None:
    del nothing_set.DURABLE_JOBS
    assert timedelta(seconds=1) == conf.TICK_INTERVAL
    assert timedelta(seconds=60) == conf.LEASE_DURATION
    assert conf.RETENTION["completed"] == timedelta(days=30)
    assert conf.RETENTION["failed"] == timedelta(days=90)
    assert set(conf.RETENTION) == {
        "completed", "failed", "cancelled", "skipped", "events"
    }  # fmt: skip
    assert conf.EVENT_KEYS == ()
    assert conf.MAX_STEPS == 1000
    assert conf.MAX_STEP_BYTES == 4 * 2**20
    assert conf.MAX_RUN_BYTES == 32 * 2**20
    assert conf.MAX_EVENT_BYTES == 512 * 2**10
    assert conf.MAX_EVENTS == 5000
    assert conf.EXECUTOR == "celery"
    assert conf.QUEUE == conf.TICK_QUEUE == "default"
    assert conf.ALWAYS_SUSPEND is False
    assert timedelta(hours=24) == conf.IDEMPOTENCY_PERIOD
    assert conf.CALLBACK_BASE_URL is None
    assert conf.DATABASE == "default"
    assert conf.MAX_REQUEST_BYTES == 4 * 2**20
    assert Rate(1200, timedelta(minutes=1)) == conf.API_RATE
    assert problems() == []


def test_settings_are_read_with_their_types(nothing_set: Settings) -> None:
    nothing_set.DURABLE_JOBS = {
        "TICK_INTERVAL": "250ms",
        "RETENTION": {"failed": "1w", "events": None},
        "EVENT_KEYS": ["one", "two"],
        "EXECUTOR": "inline",
        "API_RATE": "600/1m",
        "CALLBACK_BASE_URL": "https://shop.example",
    }
    assert timedelta(milliseconds=250) == conf.TICK_INTERVAL
    assert conf.EVENT_KEYS == ("one", "two")
    assert conf.EXECUTOR == "inline"
    assert Rate(600, timedelta(minutes=1)) == conf.API_RATE
    assert conf.CALLBACK_BASE_URL == "https://shop.example"
    # An omitted kind keeps its default, and None keeps rows for ever.
    assert conf.RETENTION["completed"] == timedelta(days=30)
    assert conf.RETENTION["failed"] == timedelta(days=7)
    assert conf.RETENTION["events"] is None


def test_change_in_a_test_is_seen_at_once(nothing_set: Settings) -> None:
    assert conf.MAX_STEPS == 1000
    nothing_set.DURABLE_JOBS = {"MAX_STEPS": 5}
    assert conf.MAX_STEPS == 5


def test_tick_uses_the_default_queue_unless_configured(
    nothing_set: Settings,
) -> None:
    nothing_set.DURABLE_JOBS = {"QUEUE": "slow"}
    assert conf.TICK_QUEUE == "slow"
    nothing_set.DURABLE_JOBS = {"QUEUE": "slow", "TICK_QUEUE": "fast"}
    assert conf.TICK_QUEUE == "fast"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TICK_INTERVAL", "soon"), ("TICK_INTERVAL", 0), ("TICK_INTERVAL", None),
        ("LEASE_DURATION", "-1s"),
        ("RETENTION", "30d"), ("RETENTION", {"complete": "30d"}),
        ("RETENTION", {"failed": 0}), ("RETENTION", {3: "1d"}),
        ("EVENT_KEYS", "abc"), ("EVENT_KEYS", [""]), ("EVENT_KEYS", [1]),
        ("MAX_STEPS", 0), ("MAX_STEPS", "10"), ("MAX_STEPS", 1.5), ("MAX_STEPS", True),
        ("EXECUTOR", "sellery"), ("EXECUTOR", []), ("QUEUE", ""), ("QUEUE", None),
        ("TICK_QUEUE", 3), ("ALWAYS_SUSPEND", 1), ("CALLBACK_BASE_URL", "ftp://x"),
        ("DATABASE", "elsewhere"), ("DATABASE", ["default"]), ("API_RATE", "600"),
        ("API_RATE", 6), ("API_RATE", "0/1m"), ("API_RATE", "6/0s"),
        ("API_RATE", "many/1m"), ("API_RATE", "6/soon"), ("MAX_REQUEST_BYTES", 0),
        ("WEBHOOK_RATE", "600"), ("NUM_PROXIES", -1), ("NUM_PROXIES", "1"),
        ("NUM_PROXIES", True),
    ],
)  # fmt: skip
def test_wrong_value_is_a_check_error_and_raises_on_access(
    nothing_set: Settings, name: str, value: Any
) -> None:
    nothing_set.DURABLE_JOBS = {name: value}
    ((message, hint),) = problems()
    assert name in message
    assert "expected" in message
    assert name in hint
    with pytest.raises(ConfigurationError) as caught:
        getattr(conf, name)
    assert caught.value.message == message
    assert conf.MAX_EVENTS == 5000, "the other settings can be read"


def test_problems_are_all_found_at_once(nothing_set: Settings) -> None:
    nothing_set.DURABLE_JOBS = {
        "TICK_INTERVALS": "1s",
        "MAX_STEPS": 0,
        "LEASE_DURATION": "x",
        7: 7,
    }
    assert len(problems()) == 4


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("TICK_INTERVALS", "TICK_INTERVAL"),
        ("max_steps", "MAX_STEPS"),
        ("RETENTOIN", "RETENTION"),
    ],
)
def test_unknown_setting_gets_a_suggestion(
    nothing_set: Settings, name: str, meant: str
) -> None:
    nothing_set.DURABLE_JOBS = {name: "1s"}
    ((message, hint),) = problems()
    assert repr(name) in message
    assert hint == f"Did you mean {meant!r}?"


def test_unknown_setting_unlike_any_lists_them_all(
    nothing_set: Settings,
) -> None:
    nothing_set.DURABLE_JOBS = {"QQQQQQ": 1}
    ((_, hint),) = problems()
    assert "PRUNE_BATCH" in hint


def test_misspelt_values_get_a_suggestion_too(nothing_set: Settings) -> None:
    nothing_set.DURABLE_JOBS = {"RETENTION": {"complete": "1d"}, "EXECUTOR": "inlin"}
    messages = " ".join(message for message, _ in problems())
    assert "Did you mean 'completed'?" in messages
    assert "Did you mean 'inline'?" in messages


def test_event_keys_never_show_in_a_message(nothing_set: Settings) -> None:
    nothing_set.DURABLE_JOBS = {"EVENT_KEYS": ("s3cret", 5)}
    assert "s3cret" not in str(problems())


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_settings_that_are_no_dict_are_one_problem(
    nothing_set: Settings, value: Any
) -> None:
    nothing_set.DURABLE_JOBS = value
    ((message, _),) = problems()
    assert "expected a dict" in message
    with pytest.raises(ConfigurationError, match="expected a dict"):
        _ = conf.TICK_INTERVAL


def test_settings_are_exactly_the_documented_ones() -> None:
    name = "TIKC"
    with pytest.raises(AttributeError, match=name):
        getattr(conf, name)
