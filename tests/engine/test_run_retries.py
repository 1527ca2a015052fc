"""``ctx.step.run``: number and delay of retries."""

from __future__ import annotations

import itertools
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from durable_jobs import clock, durable
from durable_jobs.engine.retries import next_attempt
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start
from tests.engine.failures import Broken, Refused, failing

SOON = durable.Backoff.fixed("7s")


def test_failing_body_is_retried_until_it_succeeds(start: Start, later: Later):
    calls: list[int] = []

    def trying(ctx):
        return ctx.step.run("try", failing(calls, until=3))

    run = start(trying, backoff=durable.Backoff.fixed("10s"))
    assert (run.status, len(calls)) == ("waiting", 1)
    assert later(run, "9s").status == "waiting"
    assert len(calls) == 1
    assert later(run, "1s").status == "waiting"
    assert len(calls) == 2

    assert later(run, "10s").result() == "success 3"


def test_functions_retries_are_the_default_and_the_steps_own_go_first(
    start: Start, later: Later
):
    by_function: list[int] = []
    by_step: list[int] = []
    never: list[int] = []

    def counted(ctx):
        for name, calls, options in [
            ("function's", by_function, {}),
            ("own", by_step, {"retries": 1}),
            ("none", never, {"retries": 0}),
        ]:
            with pytest.raises(durable.StepFailed):
                ctx.step.run(name, failing(calls), **options)

    run = start(counted, retries=2, backoff=durable.Backoff.fixed("1s"))

    assert later(run, "1m").status == "completed"
    assert [len(by_function), len(by_step), len(never)] == [3, 2, 1]


def test_default_is_four_retries(start: Start, later: Later):
    calls: list[int] = []

    def plain(ctx):
        ctx.step.run("fail", failing(calls))

    run = later(start(plain), "12h")

    assert run.status == "failed"
    assert len(calls) == 5


def test_backoff_decides_when(start: Start, later: Later, durable_kit: Kit):
    times = []

    def body():
        times.append(durable_kit.now())
        raise Broken

    def backing_off(ctx):
        backoff = durable.Backoff.exponential(initial="1m", factor=3, jitter=0)
        ctx.step.run("fail", body, retries=3, backoff=backoff)

    later(start(backing_off), "1d")

    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert pauses == [timedelta(minutes=1), timedelta(minutes=3), timedelta(minutes=9)]


def test_backoff_may_be_a_callable_of_the_attempt_and_the_error(
    start: Start, later: Later
):
    asked = []
    calls: list[int] = []

    def backoff(attempt, error):
        asked.append((attempt, str(error)))
        return timedelta(seconds=5)

    def backing_off(ctx):
        ctx.step.run("fail", failing(calls), retries=2, backoff=backoff)

    later(start(backing_off), "10s")

    assert asked == [(0, "failure 1"), (1, "failure 2")]
    assert len(calls) == 3


def test_retry_on_retries_only_its_errors(start: Start, later: Later):
    wanted: list[int] = []
    unwanted: list[int] = []

    def choosing(ctx):
        options = {"retries": 2, "backoff": durable.Backoff.fixed(1)}
        options["retry_on"] = (Refused, KeyError)
        with pytest.raises(durable.StepFailed):
            ctx.step.run("wanted", failing(wanted, error=Refused), **options)
        with pytest.raises(durable.StepFailed):
            ctx.step.run("unwanted", failing(unwanted, error=Broken), **options)

    assert later(start(choosing), "1m").status == "completed"
    assert [len(wanted), len(unwanted)] == [3, 1]


def test_non_retriable_is_not_tried_again(start: Start, later: Later):
    calls: list[int] = []

    def giving_up(ctx):
        ctx.step.run(
            "fail", failing(calls, error=durable.NonRetriableError), retries=20
        )

    run = later(start(giving_up), "1d")

    assert run.status == "failed"
    assert run.error["type"] == "NonRetriableError"
    assert len(calls) == 1


def test_retry_after_a_time_of_the_bodys_choice(
    start: Start, later: Later, durable_kit: Kit
):
    times = []
    moment = durable_kit.now() + timedelta(days=2)

    def body():
        times.append(durable_kit.now())
        if len(times) == 1:
            raise durable.RetryAfterError("1h", "busy")
        if len(times) == 2:
            raise durable.RetryAfterError(moment)
        return "done"

    def patient(ctx):
        return ctx.step.run("ask", body, backoff=durable.Backoff.fixed("1s"))

    assert later(start(patient), "3d").result() == "done"
    assert times[1:] == [times[0] + timedelta(hours=1), moment]


def test_retry_after_counts_as_an_attempt(start: Start, later: Later):
    calls: list[int] = []

    def body():
        calls.append(1)
        raise durable.RetryAfterError("1s")

    def patient(ctx):
        ctx.step.run("ask", body, retries=1)

    run = later(start(patient), "1m")
    assert run.error["type"] == "RetryAfterError"
    assert len(calls) == 2


class Odd:
    def __repr__(self) -> str:
        sys.exit(3)


HTTP_DATE = "Tue, 01 Jan 2030 00:00:00 GMT"
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("when", "due"),
    [
        ("1", timedelta(seconds=1)),
        (" 120 ", timedelta(minutes=2)),
        ("1.5", timedelta(seconds=1.5)),
        (HTTP_DATE, NEW_YEAR),
        (HTTP_DATE.replace("GMT", "-0000"), NEW_YEAR),
        ("2030-01-01T01:00:00+01:00", NEW_YEAR),
        (NEW_YEAR, NEW_YEAR),
        (NEW_YEAR - timedelta(days=9999), timedelta(0)),
        (timedelta(hours=1), timedelta(hours=1)),
        (0, timedelta(0)),
        (2.5, timedelta(seconds=2.5)),
        ("1h30m", timedelta(minutes=90)),
        (10**7, timedelta(seconds=10**7)),
        ("9000d", timedelta(days=366)),
    ],
)
def test_retry_after_accepts_the_forms_that_services_send(
    when: Any, due: Any, caplog: pytest.LogCaptureFixture
):
    now = datetime(2029, 12, 31, tzinfo=UTC)
    with clock.using(clock.VirtualClock(now)):
        moment = next_attempt(durable.RetryAfterError(when), 0, 1, SOON)
    assert moment == (due if isinstance(due, datetime) else now + due)
    assert not caplog.records


@pytest.mark.parametrize(
    "when",
    [
        "soon",
        "",
        "-5",
        -5,
        timedelta(seconds=-1),
        float("nan"),
        float("inf"),
        10**400,
        "1" * 10_000,
        True,
        None,
        b"120",
        "2030-01-01T00:00:00",
        datetime(2030, 1, 1),  # noqa: DTZ001  # the case under test
        Odd,
    ],
    ids=lambda one: f"{type(one).__name__} {one!r:.10}",
)
def test_retry_after_without_a_valid_time_uses_the_backoff(
    when: Any,
    start: Start,
    later: Later,
    durable_kit: Kit,
    caplog: pytest.LogCaptureFixture,
):
    times = []

    def body():
        times.append(durable_kit.now())
        if len(times) == 1:
            raise durable.RetryAfterError(Odd() if when is Odd else when, "busy")
        return "done"

    def patient(ctx):
        return ctx.step.run("ask", body, backoff=SOON)

    assert later(start(patient), "1m").result() == "done"
    assert times[1] - times[0] == timedelta(seconds=7)
    warned = [one for one in caplog.records if "the backoff is used" in one.message]
    assert [one.levelname for one in warned] == ["WARNING"]


def test_failing_backoff_fails_the_step_without_a_retry(start: Start, later: Later):
    calls: list[int] = []

    def backoff(attempt, error):
        raise LookupError("no table")

    def backing_off(ctx):
        ctx.step.run("fail", failing(calls), backoff=backoff)

    run = later(start(backing_off), "1d")
    assert run.error["type"] == "ConfigurationError"
    for part in ["backoff", "LookupError", "no table"]:
        assert part in run.error["message"]
    assert len(calls) == 1


# The function's own errors


def test_function_that_raises_is_called_again_and_repeats_no_step(
    start: Start, later: Later
):
    calls = []

    def raising(ctx):
        ctx.step.run("once", lambda: calls.append(1))
        if ctx.attempt < 2:
            raise Broken(f"attempt {ctx.attempt}")
        return "third time lucky"

    run = later(start(raising, retries=2, backoff=durable.Backoff.fixed("1m")), "1h")

    assert run.result() == "third time lucky"
    assert calls == [1]


def test_function_may_choose_its_next_retry(
    start: Start, later: Later, durable_kit: Kit
):
    times = []

    def raising(ctx):
        times.append(durable_kit.now())
        if ctx.attempt == 0:
            raise durable.RetryAfterError("3h")
        return "done"

    assert later(start(raising), "3h").result() == "done"
    assert times[-1] - times[0] == timedelta(hours=3)


def test_function_may_refuse_a_retry(start: Start, later: Later):
    entries = []

    def raising(ctx):
        entries.append(1)
        raise durable.NonRetriableError("never")

    run = later(start(raising), "1d")
    assert (run.error["type"], run.error["message"]) == ("NonRetriableError", "never")
    assert entries == [1]


def test_failed_attempts_are_recorded_with_their_errors(start: Start, later: Later):
    calls: list[int] = []

    def trying(ctx):
        ctx.step.run("try", failing(calls, until=3), backoff=durable.Backoff.fixed(1))

    run = later(start(trying), "1m")

    assert run.status == "completed"
    messages = [attempt.error["message"] for attempt in run.attempts.order_by("pk")]
    assert messages == ["failure 1", "failure 2"]
    assert run.steps.get().attempt == 2
