"""Errors by which user code controls its retries."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit


def test_non_retriable_ends_at_once(durable_kit: Kit) -> None:
    calls: list[int] = []

    @durable.function(id="fail")
    def fail(ctx):
        calls.append(1)
        raise durable.NonRetriableError("the card is stolen")

    run = fail.enqueue().wait(timeout=10)
    assert calls == [1]
    assert run.status == "failed"
    assert run.error["type"] == "NonRetriableError"
    assert run.error["message"] == "the card is stolen"


def test_custom_error_class_may_be_non_retriable(durable_kit: Kit) -> None:
    class Stolen(durable.NonRetriableError):
        pass

    @durable.function(id="fail")
    def fail(ctx):
        raise Stolen("since Monday")

    run = fail.enqueue().wait(timeout=10)
    assert (run.status, run.error["type"]) == ("failed", "Stolen")


@pytest.mark.exact("it counts attempts")
@pytest.mark.parametrize("kind", ["text", "seconds", "timedelta", "datetime"])
def test_retry_after_names_the_moment(durable_kit: Kit, kind: str) -> None:
    moments: list[datetime] = []

    @durable.function(id="limited")
    def limited(ctx):
        moments.append(durable_kit.now())
        if ctx.attempt < 2:
            after: dict[str, Any] = {
                "text": "90s",
                "seconds": 90,
                "timedelta": timedelta(seconds=90),
                "datetime": durable_kit.now() + timedelta(seconds=90),
            }
            raise durable.RetryAfterError(after[kind], "too many requests")
        return "done"

    run = limited.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == "done"
    start = run.queued_at
    assert moments == [
        start,
        start + timedelta(seconds=90),
        start + timedelta(minutes=3),
    ]


@pytest.mark.exact("it counts attempts")
def test_retry_after_is_a_retry_like_others(durable_kit: Kit) -> None:
    calls: list[int] = []

    @durable.function(id="limited", retries=2)
    def limited(ctx):
        calls.append(1)
        raise durable.RetryAfterError("1s", "too many requests")

    run = limited.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert len(calls) == 3
    assert (run.status, run.error["type"]) == ("failed", "RetryAfterError")
    assert run.error["message"] == "too many requests"


@pytest.mark.exact("it counts attempts")
@pytest.mark.parametrize(
    "wrong",
    ["soon", -5, None, datetime(2026, 1, 1)],  # noqa: DTZ001  # wrong on purpose
    ids=repr,
)
def test_invalid_retry_after_falls_back_to_the_backoff(
    durable_kit: Kit, wrong: Any
) -> None:
    moments: list[datetime] = []

    @durable.function(id="limited", retries=1, backoff=durable.Backoff.fixed("9s"))
    def limited(ctx):
        moments.append(durable_kit.now())
        raise durable.RetryAfterError(wrong, "too many requests")

    run = limited.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, run.error["type"]) == ("failed", "RetryAfterError")
    assert moments[1] - moments[0] == timedelta(seconds=9)


def broken(attempt: int, error: BaseException | None) -> str:
    """Return an invalid duration."""
    return "a while"


def failing(attempt: int, error: BaseException | None) -> int:
    """Fail."""
    return 1 // attempt


@pytest.mark.parametrize("backoff", [broken, failing])
def test_broken_backoff_fails_the_run_with_what_was_expected(
    durable_kit: Kit, backoff: Any
) -> None:
    @durable.function(id="plain", backoff=backoff)
    def plain(ctx):
        raise ValueError("no")

    @durable.function(id="stepped", backoff=backoff)
    def stepped(ctx):
        ctx.step.run("call", plain.body, ctx)

    for function in (plain, stepped):
        run = function.enqueue().wait(timeout=10)
        assert run.status == "failed"
        assert run.error["type"] == "ConfigurationError"
        assert backoff.__name__ in run.error["message"]


@pytest.mark.parametrize(
    "error",
    [
        durable.PayloadError("x"),
        durable.LimitExceeded("x"),
        durable.ConfigurationError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_that_another_attempt_cannot_mend_are_not_retried(
    durable_kit: Kit, error: Exception
) -> None:
    calls: list[int] = []

    @durable.function(id="fail")
    def fail(ctx):
        calls.append(1)
        raise error

    run = fail.enqueue()
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert (run.status, calls) == ("failed", [1])
