"""``@durable.step``: a plain function that is a step when a run calls it."""

from __future__ import annotations

import asyncio
import inspect

import pytest
from asgiref.sync import iscoroutinefunction

from durable_jobs import durable
from durable_jobs.models import Step
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start
from tests.engine.failures import Broken

calls: list[object] = []


@pytest.fixture(autouse=True)
def no_calls() -> None:
    """Clear the recorded calls."""
    calls.clear()


@durable.step
def double(number: int, *, plus: int = 0) -> int:
    """Return twice the number."""
    calls.append(number)
    return 2 * number + plus


@durable.step
async def adouble(number: int) -> int:
    """Return twice the number."""
    calls.append(number)
    await asyncio.sleep(0)
    return 2 * number


def test_decorated_function_outside_a_run_is_a_plain_call():
    assert double(2, plus=1) == 5
    assert calls == [2]
    assert not Step.objects.exists()


def test_decorated_function_keeps_its_name_and_type():
    assert double.__name__ == "double"
    assert double.__doc__ == "Return twice the number."
    assert list(inspect.signature(double).parameters) == ["number", "plus"]
    assert not inspect.iscoroutinefunction(double)


def test_decorated_function_inside_a_run_is_a_step_of_its_name(
    start: Start, later: Later
):
    def deciding(ctx):
        result = double(3, plus=1)
        ctx.step.sleep("nap", 1)
        return result

    run = later(start(deciding), 1)

    assert run.result() == 7
    assert calls == [3]
    assert run.steps.get(name="double").kind == "run"


def test_each_call_is_a_step(start: Start, later: Later):
    def deciding(ctx):
        results = [double(n) for n in range(3)]
        ctx.step.sleep("nap", 1)
        return results

    assert later(start(deciding), 1).result() == [0, 2, 4]
    assert calls == [0, 1, 2]


def test_helper_without_a_context_may_call_a_decorated_function(start: Start):
    def helper():
        return double(1) + double(2)

    def deciding(ctx):
        with ctx.step.group("helper"):
            return helper()

    run = start(deciding)

    assert run.result() == 6
    group = run.steps.get(name="helper")
    assert group.children.count() == 2


def test_decorated_step_is_retried_as_the_function_says(start: Start, later: Later):
    @durable.step
    def failing():
        calls.append(1)
        raise Broken

    def deciding(ctx):
        failing()

    run = later(start(deciding, retries=2, backoff=durable.Backoff.fixed(1)), "1m")
    assert run.error["type"] == "Broken"
    assert len(calls) == 3


def test_decorated_step_works_in_the_branches_of_a_map(start: Start):
    def deciding(ctx):
        return ctx.step.map("all", double, [1, 2, 3])

    assert start(deciding).result() == [2, 4, 6]
    assert sorted(calls, key=str) == [1, 2, 3]


def test_decorated_step_inside_another_body_is_refused(start: Start):
    def deciding(ctx):
        ctx.step.run("outer", lambda: double(1))

    run = start(deciding)
    assert run.error["type"] == "NestedStepError"
    assert not calls


@pytest.mark.exact("a body whose sibling's commit fails is called again")
def test_async_decorated_step_is_awaited(start: Start, later: Later):
    async def deciding(ctx):
        both = await asyncio.gather(adouble(1), adouble(2))
        await ctx.step.sleep("nap", 1)
        return both

    assert later(start(deciding), 1).result() == [2, 4]
    assert sorted(calls, key=str) == [1, 2]


def test_async_decorated_step_outside_a_run_is_a_plain_coroutine():
    assert iscoroutinefunction(adouble)
    assert asyncio.run(adouble(4)) == 8


def test_async_decorated_step_in_a_plain_function_returns_its_result(start: Start):
    def deciding(ctx):
        return ctx.step.run("double", adouble.__wrapped__, 4)  # type: ignore[attr-defined]  # functools.wraps

    assert start(deciding).result() == 8


def test_stub_may_replace_a_decorated_step(start: Start, durable_kit: Kit):
    durable_kit.stub("double", 100)

    def deciding(ctx):
        return double(3)

    assert start(deciding).result() == 100
    assert not calls
