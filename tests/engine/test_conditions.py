"""``ctx.step.wait_for_condition``: a repeated check, in one row."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Step, Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Configure, Later, Start
from tests.engine.failures import Broken, Refused


def test_condition_is_checked_until_done_and_returns_its_value(
    start: Start, later: Later, durable_kit: Kit
):
    times, seen = [], []

    def check(state):
        times.append(durable_kit.now())
        return durable.Done({"tries": len(times)}) if len(times) == 3 else None

    def polling(ctx):
        seen.append(ctx.step.wait_for_condition("poll", check, every="10m"))
        ctx.step.sleep("nap", "1h")
        return seen[-1]

    began = durable_kit.now()
    run = start(polling)
    assert run.status == "waiting"
    assert run.lease_token is None, "a worker is still busy"

    assert later(run, "3h").result() == {"tries": 3}
    assert times == [began + timedelta(minutes=10 * n) for n in range(3)]
    assert seen == [{"tries": 3}] * len(seen)


def test_condition_that_is_true_at_once_does_not_wait(start: Start):
    def polling(ctx):
        return ctx.step.wait_for_condition("poll", durable.Done, every="1h")

    assert start(polling).result() is None


def test_each_check_gets_the_value_of_the_last_one(start: Start, later: Later):
    given: list[Any] = []

    def check(state):
        given.append(state)
        page, found = state
        if page == 3:
            return durable.Done(found)
        return (page + 1, found | {page})

    def polling(ctx):
        return ctx.step.wait_for_condition(
            "poll", check, every="1m", initial=(0, set())
        )

    assert later(start(polling), "1h").result() == {0, 1, 2}
    assert given == [(0, set()), (1, {0}), (2, {0, 1}), (3, {0, 1, 2})]


def test_condition_is_one_row_for_any_number_of_checks(start: Start, later: Later):
    def polling(ctx):
        ctx.step.wait_for_condition("poll", lambda n: n + 1, every="1m", initial=0)

    run = later(start(polling), "30m")

    assert Step.objects.count() == 1
    assert Wait.objects.count() == 1
    assert run.steps.get().attempt == 31


def test_backoff_may_decide_when(start: Start, later: Later, durable_kit: Kit):
    times = []

    def check(state):
        times.append(durable_kit.now())

    def polling(ctx):
        backoff = durable.Backoff.exponential(initial="1m", factor=2, jitter=0)
        ctx.step.wait_for_condition("poll", check, backoff=backoff)

    began = durable_kit.now()
    later(start(polling), "10m")

    assert times == [began + timedelta(minutes=m) for m in (0, 1, 3, 7)]


def test_attempts_that_are_used_up_are_a_timeout(start: Start, later: Later):
    calls, seen = [], []

    def polling(ctx):
        try:
            ctx.step.wait_for_condition(
                "poll", calls.append, every="1m", max_attempts=3
            )
        except durable.ConditionTimeout as error:
            seen.append((error.error_type, str(error)))
        ctx.step.sleep("nap", 1)

    run = later(start(polling), "1h")

    assert run.status == "completed"
    assert len(calls) == 3
    assert len(seen) >= 2
    assert set(seen) == {
        ("ConditionTimeout", "The condition was not met in 3 attempts.")
    }


def test_time_that_is_used_up_is_a_timeout(start: Start, later: Later):
    calls, seen = [], []

    def polling(ctx):
        try:
            ctx.step.wait_for_condition("poll", calls.append, every="10m", timeout="1h")
        except durable.ConditionTimeout as error:
            seen.append((error.error_type, str(error)))
        ctx.step.sleep("nap", "1h")

    run = later(start(polling), "3h")

    assert run.status == "completed"
    assert 6 <= len(calls) <= 7
    assert set(seen) == {("ConditionTimeout", "The condition was not met within 1h.")}


def test_time_is_used_up_between_two_askings(start: Start, later: Later):
    calls = []

    def polling(ctx):
        ctx.step.wait_for_condition("poll", calls.append, every="1d", timeout="1h")

    run = later(start(polling), "1h")
    assert run.error["type"] == "ConditionTimeout"
    assert len(calls) == 1


def test_failing_check_is_retried_with_the_same_state(start: Start, later: Later):
    given = []

    def check(state):
        given.append(state)
        if len(given) in (2, 3):
            raise Broken
        return durable.Done(state) if state == 2 else state + 1

    def polling(ctx):
        return ctx.step.wait_for_condition("poll", check, every="1m", initial=0)

    options = {"retries": 2, "backoff": durable.Backoff.fixed("1s")}
    assert later(start(polling, **options), "1h").result() == 2
    assert given == [0, 1, 1, 1, 2]


def test_errors_do_not_use_up_attempts_and_are_counted_anew_after_a_success(
    start: Start, later: Later
):
    calls = []

    def check(state):
        calls.append(1)
        if len(calls) % 2:
            raise Broken
        return durable.Done("met") if len(calls) == 6 else None

    def polling(ctx):
        return ctx.step.wait_for_condition("poll", check, every="1m", max_attempts=3)

    options = {"retries": 1, "backoff": durable.Backoff.fixed("1s")}
    assert later(start(polling, **options), "1h").result() == "met"


def test_error_that_stays_is_raised(start: Start, later: Later):
    seen = []

    def check(state):
        raise Refused("for good")

    def polling(ctx):
        try:
            ctx.step.wait_for_condition("poll", check, every="1m", timeout="1d")
        except durable.StepFailed as error:
            seen.append((error.error_type, str(error), type(error.__cause__)))
        ctx.step.sleep("nap", 1)

    options = {"retries": 1, "backoff": durable.Backoff.fixed("1s")}
    run = later(start(polling, **options), "1h")

    assert run.status == "completed"
    assert set(seen) == {("Refused", "for good", Refused)}
    assert not Wait.objects.exists()


def test_failed_checks_are_recorded_with_their_errors(start: Start, later: Later):
    calls = []

    def check(state):
        calls.append(1)
        if len(calls) == 1:
            raise Refused("busy")
        return durable.Done()

    def polling(ctx):
        ctx.step.wait_for_condition("poll", check, every="1m")

    run = later(start(polling, backoff=durable.Backoff.fixed("1s")), "1h")
    assert [one.error["message"] for one in run.attempts.all()] == ["busy"]


@pytest.mark.parametrize("when", ["before", "body", "after"])
def test_worker_that_dies_at_an_asking(
    start: Start, later: Later, durable_kit: Kit, when
):
    calls = []

    def check(state):
        calls.append(state)
        return durable.Done("met") if state == 1 else state + 1

    def polling(ctx):
        return ctx.step.wait_for_condition("poll", check, every="1m", initial=0)

    durable_kit.crash_at("poll", when=when)
    assert later(start(polling), "10m").result() == "met"
    assert calls == ([0, 0, 1] if when == "body" else [0, 1])


def test_check_may_be_async(start: Start):
    async def check(state):
        return durable.Done("met")

    def polling(ctx):
        return ctx.step.wait_for_condition("poll", check, every="1m")

    assert start(polling).result() == "met"


def test_steps_inside_a_condition_are_refused(start: Start):
    def nesting(ctx):
        def check(state):
            ctx.step.run("inner", lambda: 1)

        ctx.step.wait_for_condition("poll", check, every="1m")

    assert start(nesting).error["type"] == "NestedStepError"


@pytest.mark.parametrize("state", [object(), float("nan")], ids=["object", "nan"])
def test_state_that_cannot_be_stored_is_refused(start: Start, state):
    def polling(ctx):
        ctx.step.wait_for_condition("poll", lambda _: state, every="1m")

    run = start(polling)
    assert run.error["type"] == "PayloadError"
    assert "'poll'" in run.error["message"]


def test_state_past_the_limit_is_refused(start: Start, configure: Configure):
    configure(MAX_STEP_BYTES=100)

    def polling(ctx):
        ctx.step.wait_for_condition("poll", lambda _: "x" * 200, every="1m")

    run = start(polling)
    assert run.error["type"] in {"PayloadError", "LimitExceeded"}
    assert "MAX_STEP_BYTES" in run.error["message"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "every"),
        ({"every": 1, "backoff": durable.Backoff.fixed(1)}, "every"),
        ({"every": "often"}, "every"),
        ({"every": -1}, "every"),
        ({"every": "367d"}, "366 days"),
        ({"backoff": 7}, "backoff"),
        ({"every": 1, "max_attempts": 0}, "max_attempts"),
        ({"every": 1, "timeout": "soon"}, "timeout"),
    ],
    ids=str,
)
def test_wrong_call_is_refused(start: Start, options, expected):
    def mistaken(ctx):
        ctx.step.wait_for_condition("poll", lambda state: None, **options)

    run = start(mistaken)
    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]
