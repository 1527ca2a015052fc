"""Retries after an error of the function: their delays, number and end."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import FailedAttempt, Run
from durable_jobs.testing import Kit

FIXED = durable.Backoff.fixed("10s")


def seconds_between(moments: list[datetime]) -> list[float]:
    """Return the seconds between moments."""
    pairs = itertools.pairwise(moments)
    return [(later - earlier).total_seconds() for earlier, later in pairs]


@pytest.mark.exact("it counts attempts")
@pytest.mark.parametrize("retries", [0, 1, 4])
def test_failing_body_is_called_retries_plus_one_times(
    durable_kit: Kit, retries: int
) -> None:
    attempts: list[int] = []

    @durable.function(id="fail", retries=retries, backoff=FIXED)
    def fail(ctx):
        attempts.append(ctx.attempt)
        raise ValueError("no")

    run = fail.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert attempts == list(range(retries + 1))
    assert run.status == "failed"
    assert run.error["type"] == "ValueError"
    numbers = FailedAttempt.objects.filter(run=run, step="").values_list(
        "number", flat=True
    )
    assert list(numbers) == list(range(retries))


@pytest.mark.exact("it counts attempts")
def test_default_is_four_retries(durable_kit: Kit) -> None:
    calls: list[int] = []

    @durable.function(id="fail")
    def fail(ctx):
        calls.append(ctx.attempt)
        raise ValueError("no")

    fail.enqueue()
    durable_kit.advance("1d")
    assert calls == [0, 1, 2, 3, 4]


def test_body_that_succeeds_at_last_completes(durable_kit: Kit) -> None:
    @durable.function(id="flaky", backoff=FIXED)
    def flaky(ctx):
        if ctx.attempt < 2:
            raise ConnectionError("try later")
        return ctx.attempt

    run = flaky.enqueue()
    durable_kit.advance("19s")
    run.refresh_from_db()
    assert (run.status, run.attempt) == ("queued", 2)
    durable_kit.advance("1s")
    run.refresh_from_db()
    assert run.result() == 2
    assert run.ended_at == run.queued_at + timedelta(seconds=20)


@pytest.mark.exact("it counts attempts")
@pytest.mark.parametrize(
    ("backoff", "expected"),
    [
        (durable.Backoff.fixed("10s"), [10, 10, 10, 10]),
        (durable.Backoff.linear("10s", step="5s", jitter=0), [10, 15, 20, 25]),
        (durable.Backoff.exponential("1s", 3, "10s", jitter=0), [1, 3, 9, 10]),
        (lambda attempt, error: timedelta(minutes=attempt + 1), [60, 120, 180, 240]),
        (lambda attempt, error: 0, [0, 0, 0, 0]),
        (lambda attempt, error: error.args[0], [7, 7, 7, 7]),
    ],
    ids=["fixed", "linear", "exponential", "callable", "at once", "by the error"],
)
def test_backoff_decides_when(
    durable_kit: Kit, backoff: Any, expected: list[float]
) -> None:
    moments: list[datetime] = []

    @durable.function(id="fail", backoff=backoff)
    def fail(ctx):
        moments.append(durable_kit.now())
        raise ValueError("7s")

    fail.enqueue()
    durable_kit.advance("1h")
    assert seconds_between(moments) == expected


@pytest.mark.exact("it counts attempts")
def test_default_backoff_grows_with_some_chance(durable_kit: Kit) -> None:
    moments: list[datetime] = []

    @durable.function(id="fail")
    def fail(ctx):
        moments.append(durable_kit.now())
        raise ValueError("no")

    fail.enqueue()
    durable_kit.advance("1d")
    for pause, base in zip(seconds_between(moments), [15, 30, 60, 120], strict=True):
        assert base <= pause <= base + 30


@pytest.mark.exact("it counts attempts")
def test_progress_resets_the_retries_of_the_body(durable_kit: Kit) -> None:
    attempts: list[int] = []
    failed: set[int] = set()

    @durable.function(id="slow", retries=1, backoff=FIXED)
    def slow(ctx):
        attempts.append(ctx.attempt)
        for number in range(3):
            ctx.step.run(f"part {number}", lambda: None)
            if number not in failed:
                failed.add(number)
                raise ValueError("after progress")
        return "done"

    run = slow.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == "done"
    # Never more than one failure without progress, though it failed three times.
    assert (len(failed), max(attempts)) == (3, 1)


@pytest.mark.exact("it counts attempts")
def test_wait_resets_the_retries_of_the_body(durable_kit: Kit) -> None:
    attempts: list[int] = []

    @durable.function(id="sleepy", retries=1, backoff=FIXED)
    def sleepy(ctx):
        attempts.append(ctx.attempt)
        if len(attempts) in (1, 3):
            raise ValueError("no")
        ctx.step.sleep("nap", "1m")
        return "rested"

    run = sleepy.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert attempts == [0, 1, 0, 1]
    assert run.result() == "rested"


def test_steps_are_not_repeated_with_the_body(durable_kit: Kit) -> None:
    calls: list[int] = []

    @durable.function(id="fail", retries=3, backoff=FIXED)
    def fail(ctx):
        ctx.step.run("once", lambda: calls.append(1))
        raise ValueError("no")

    run = fail.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, calls) == ("failed", [1])


@pytest.mark.exact("it counts attempts")
def test_step_that_failed_ends_the_run_without_retries_of_the_body(
    durable_kit: Kit,
) -> None:
    bodies: list[int] = []

    def charge() -> None:
        raise ConnectionError("the bank is closed")

    @durable.function(id="pay", retries=2, backoff=FIXED)
    def pay(ctx):
        bodies.append(ctx.attempt)
        ctx.step.run("charge", charge, retries=0)

    run = pay.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert bodies == [0]
    assert run.error["type"] == "ConnectionError"
    assert run.error["message"] == "the bank is closed"


def test_return_value_that_cannot_be_stored_fails_the_run(durable_kit: Kit) -> None:
    @durable.function(id="odd")
    def odd(ctx):
        return {"x": object()}

    run = odd.enqueue().wait(timeout=10)
    assert run.status == "failed"
    assert run.error["type"] == "PayloadError"
    assert f"the output of run {run.pk} of odd" in run.error["message"]
    assert run.attempt == 0


def test_errors_are_recorded_whatever_their_message(durable_kit: Kit) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    errors: list[Exception] = [
        Odd(), ValueError("a\x00b"), ValueError("a\ud800b"), ValueError("x" * 10**6)
    ]  # fmt: skip

    @durable.function(id="fail", retries=0)
    def fail(ctx):
        raise errors[ctx.event.data["n"]]

    runs = [fail.enqueue({"n": n}) for n in range(len(errors))]
    durable_kit.run_until_idle()
    for run in runs:
        run.refresh_from_db()
        assert run.status == "failed"
        assert len(run.error["message"]) < 5_000
        assert len(run.error["traceback"]) < 20_000
    assert runs[0].error["type"] == "Odd"
    assert runs[1].error["message"].startswith("a")


def test_traceback_begins_in_the_users_code(durable_kit: Kit) -> None:
    def inner() -> None:
        raise ValueError("deep")

    @durable.function(id="fail", retries=0)
    def fail(ctx):
        inner()

    run = fail.enqueue().wait(timeout=10)
    lines = run.error["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert __file__.rpartition("/")[2] in lines[1]
    assert "in inner" in run.error["traceback"]


def test_retries_survive_a_crash(durable_kit: Kit) -> None:
    attempts: list[int] = []

    @durable.function(id="both", retries=2, backoff=FIXED)
    def both(ctx):
        attempts.append(ctx.attempt)
        ctx.step.run("first", lambda: None)
        if len(attempts) < 4:
            raise ValueError("no")
        return "done"

    durable_kit.crash_at("first", when="after")
    run = both.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == "done"
    assert attempts == [0, 0, 1, 2]


def test_inside_of_a_failed_run_can_be_read(durable_kit: Kit) -> None:
    @durable.function(id="fail", retries=1, backoff=FIXED)
    def fail(ctx):
        raise ValueError(f"attempt {ctx.attempt}")

    run = fail.enqueue()
    durable_kit.advance("1m")
    run.refresh_from_db()
    assert run.error["message"] == "attempt 1"
    kept = run.attempts.get()
    assert kept.error["message"] == "attempt 0"
    assert kept.ended_at == run.queued_at
    assert Run.objects.get().output is None
