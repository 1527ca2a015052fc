"""Single branches: plain branches, retries, and the number at once."""

from __future__ import annotations

import functools

import pytest

from durable_jobs import durable
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused

# Plain bodies: branches without steps


def test_plain_branch_is_recorded_once(start: Start, later: Later):
    calls = []

    def plain(ctx):
        result = ctx.step.parallel(
            "p",
            {
                "plain": lambda: calls.append("plain") or (1, 2),
                "slow": lambda: ctx.step.sleep("nap", "1h"),
            },
        )
        ctx.step.sleep("another nap", "1h")
        return [type(result["plain"]).__name__, list(result["plain"])]

    assert later(start(plain), "2h").result() == ["tuple", [1, 2]]
    assert calls == ["plain"]


@pytest.mark.exact("it counts attempts")
def test_plain_branch_is_retried_as_the_function_says(start: Start, later: Later):
    calls: list[str] = []

    def failing(name, until):
        def body():
            calls.append(name)
            if calls.count(name) < until:
                raise Refused(f"{name} {calls.count(name)}")
            return f"{name} {calls.count(name)}"

        return body

    def plain(ctx):
        return ctx.step.parallel("p", [failing("a", 3), failing("b", 1)])

    backoff = durable.Backoff.fixed("10s")
    run = start(plain, retries=2, backoff=backoff)
    assert run.status == "waiting"
    assert later(run, "20s").result() == ["a 3", "b 1"]
    assert sorted(calls) == ["a", "a", "a", "b"]
    messages = [attempt.error["message"] for attempt in run.attempts.order_by("pk")]
    assert messages == ["a 1", "a 2"]


def test_branch_that_raises_after_its_steps_does_not_repeat_them(
    start: Start, later: Later
):
    calls = []

    def failing(ctx):
        def branch():
            ctx.step.run("work", calls.append, "work")
            calls.append("after")
            if calls.count("after") < 3:
                raise Refused
            return "done"

        return ctx.step.parallel("p", [branch])

    run = start(failing, retries=4, backoff=durable.Backoff.fixed("1s"))

    assert later(run, "1m").result() == ["done"]
    assert calls.count("work") == 1


def test_plain_branch_may_be_async_in_a_def_function(start: Start):
    async def plain():
        return "awaited"

    async def stepping(ctx):
        await ctx.step.run("work", int)

    def both(ctx):
        branches = [plain, functools.partial(stepping, ctx)]
        result, error = ctx.step.parallel("p", branches, return_exceptions=True)
        return [result, error.error_type]

    assert start(both).result() == ["awaited", "NestedStepError"]


def test_failed_step_that_its_branch_catches_is_no_failure(start: Start):
    def fail():
        raise Refused("no")

    def catching(ctx):
        def branch():
            try:
                ctx.step.run("fail", fail, retries=0)
            except durable.StepFailed as error:
                return f"caught {error.error_type}"

        return ctx.step.parallel("p", [branch, lambda: "fine"])

    assert start(catching).result() == ["caught Refused", "fine"]


# Number of branches at once


def test_suspended_branch_keeps_its_place(start: Start, later: Later):
    begun = []

    def narrow(ctx):
        def branch(number):
            ctx.step.run("begin", begun.append, number)
            ctx.step.sleep("nap", "1h")
            return number

        branches = [lambda n=n: branch(n) for n in range(5)]
        return ctx.step.parallel("p", branches, max_concurrency=2)

    run = start(narrow)
    assert begun == [0, 1]
    run = later(run, "1h")
    assert begun == [0, 1, 2, 3]
    run = later(run, "1h")
    assert begun == [0, 1, 2, 3, 4]
    assert later(run, "1h").result() == [0, 1, 2, 3, 4]


def test_ended_branch_frees_its_place_for_the_next(start: Start, later: Later):
    begun = []

    def narrow(ctx):
        def branch(number):
            begun.append(number)
            if number == 0:
                ctx.step.sleep("nap", "1h")

        branches = [lambda n=n: branch(n) for n in range(4)]
        ctx.step.parallel("p", branches, max_concurrency=2)

    run = start(narrow)
    assert sorted(set(begun)) == [0, 1, 2, 3]
    assert later(run, "1h").status == "completed"
    assert [begun.count(number) for number in (1, 2, 3)] == [1, 1, 1]


def test_branch_that_waits_for_a_retry_keeps_its_place(start: Start, later: Later):
    calls: list[int] = []

    def narrow(ctx):
        def branch(number):
            calls.append(number)
            if number == 0 and calls.count(0) < 2:
                raise Refused

        branches = [lambda n=n: branch(n) for n in range(2)]
        ctx.step.parallel("p", branches, max_concurrency=1)

    run = start(narrow, backoff=durable.Backoff.fixed("1h"))
    assert calls == [0]
    assert later(run, "1h").status == "completed"
    assert calls == [0, 0, 1]
