"""Stubs of the kit: callables, sequences, counts, and unused stubs."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from durable_jobs import durable
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from durable_jobs.testing.stubs import StubError

pytestmark = pytest.mark.django_db


@pytest.fixture
def pay() -> Iterator[durable.Function]:
    """Declare a function of two steps whose bodies must not be called."""
    with registry.temporary():

        @durable.function(id="pay", retries=2)
        def pay(ctx):
            order = ctx.event.data.get("order")
            first = ctx.step.run("charge", forbidden, order, currency="EUR")
            return [first, ctx.step.run("ship", forbidden, order)]

        yield pay


def forbidden(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the body was called")


def ended(run: Run) -> Run:
    run.refresh_from_db()
    return run


def test_stub_that_is_callable_gets_the_arguments_of_the_body(
    pay: durable.Function,
) -> None:
    with Kit() as kit:
        charge = kit.stub("charge", lambda order, currency: f"{order} in {currency}")
        ship = kit.stub("ship", Mock(return_value="sent"))
        run = pay.enqueue({"order": 7})
        kit.run_until_idle()
    assert ended(run).result() == ["7 in EUR", "sent"]
    assert charge.arguments == [((7,), {"currency": "EUR"})]
    assert (charge.calls, ship.calls) == (1, 1)


def test_stub_that_is_a_sequence_returns_one_result_a_call(
    pay: durable.Function,
) -> None:
    results = [ConnectionError, ValueError("no"), lambda *args, **kwargs: "third"]
    with Kit() as kit:
        charge = kit.stub("charge", results)
        ship = kit.stub("ship", ("sent",))
        run = pay.enqueue()
        kit.advance("1h")
        assert ended(run).result() == ["third", "sent"]
        run = pay.enqueue()
        with pytest.raises(StubError, match=r"'charge' has 3 results, .* called 4"):
            kit.run_until_idle()
        assert (charge.calls, ship.calls) == (4, 1)


def test_stub_that_is_a_class_of_exceptions_raises_it(pay: durable.Function) -> None:
    with Kit() as kit:
        stub = kit.stub("charge", ConnectionError)
        run = pay.enqueue()
        kit.advance("1h")
    assert ended(run).error["type"] == "ConnectionError"
    assert stub.calls == 3


@pytest.mark.parametrize("result", ["text", AsyncMock(return_value="text")])
def test_stub_of_an_async_body_may_be_a_value_or_async(result: Any) -> None:
    with Kit() as kit:

        @durable.function(id="later")
        async def later(ctx):
            async def body(n: int) -> None:
                raise AssertionError

            return await ctx.step.run("work", body, 1)

        stub = kit.stub("work", result)
        run = later.enqueue()
        kit.run_until_idle()
    assert ended(run).result() == "text"
    assert stub.arguments == [((1,), {})]


@pytest.mark.parametrize("kind", ["stub", "crash"])
def test_kit_refuses_unused_stubs(pay: durable.Function, kind: str) -> None:
    kit = Kit()
    with pytest.raises(StubError) as caught, kit:  # noqa: PT012  # the kit's end is the point
        kit.stub("charge", "charged")
        kit.stub("ship", "sent")
        if kind == "stub":
            kit.stub("chrage", "charged")
        else:
            kit.crash_at("chrage")
        pay.enqueue()
        kit.run_until_idle()
    assert f"The {kind} for step 'chrage' was never used." in str(caught.value)
    assert "Did you mean 'charge'?" in str(caught.value)


def test_kit_refuses_a_crash_at_a_place_that_was_never_reached(
    pay: durable.Function,
) -> None:
    kit = Kit()
    with pytest.raises(StubError, match="crash for step 'charge'"), kit:  # noqa: PT012  # as above
        kit.stub("charge", ValueError)
        kit.crash_at("charge", when="after")
        pay.enqueue()
        kit.advance("1h")


def test_kit_refuses_results_of_a_sequence_that_were_never_used(
    pay: durable.Function,
) -> None:
    kit = Kit()
    message = "of step 'ship' has 3 results, and was called 1 time"
    with pytest.raises(StubError, match=message), kit:  # noqa: PT012  # as above
        kit.stub("charge", "charged")
        kit.stub("ship", ["sent", "sent again", "and again"])
        pay.enqueue()
        kit.run_until_idle()
    warned = pytest.warns(UserWarning, match=message)
    with warned, Kit(unused_stubs="warn") as kit:
        kit.stub("charge", "charged")
        kit.stub("ship", ["sent", "sent again", "and again"])
        pay.enqueue()
        kit.run_until_idle()


def test_kit_counts_a_crash_that_happened_once_of_several_as_used(
    pay: durable.Function,
) -> None:
    with Kit() as kit:
        kit.stub("charge", "charged")
        kit.crash_at("charge", times=3)
        pay.enqueue()
        kit.run_until_idle()
        kit.stub("charge", "charged later")  # the earlier stub was used
        kit.advance("61s")


def test_kit_may_warn_of_unused_stubs_or_ignore_them() -> None:
    warned = pytest.warns(UserWarning, match="stub for step 'charge' was never used")
    with warned, Kit(unused_stubs="warn") as kit:
        kit.stub("charge", 1)
    with Kit(unused_stubs="ignore") as kit:
        kit.stub("charge", 1)
    with pytest.raises(durable.ConfigurationError, match="'error', 'warn' or 'ignore'"):
        Kit(unused_stubs="never")


def test_kit_keeps_the_error_of_a_test_visible() -> None:
    with pytest.raises(ZeroDivisionError), Kit() as kit:  # noqa: PT012  # as above
        kit.stub("charge", 1)
        raise ZeroDivisionError


@pytest.mark.durable_kit(unused_stubs="ignore", propagate=True)
def test_marker_has_the_options_of_the_fixture(
    durable_kit: Kit, pay: durable.Function
) -> None:
    durable_kit.stub("never", 1)
    pay.enqueue()
    with pytest.raises(AssertionError, match="the body was called"):
        durable_kit.run_until_idle()


def test_kit_that_requires_stubs_calls_no_body() -> None:
    called: list[int] = []
    with Kit(require_stubs=True) as kit:

        @durable.function(id="work", retries=0)
        def work(ctx):
            ctx.step.run("known", called.append, 1)
            ctx.step.atomic("unknown", called.append, 2)

        kit.stub("known", None)
        work.enqueue()
        with pytest.raises(StubError, match=r"Step 'unknown' has no stub.*kit\.stub"):
            kit.run_until_idle()
    assert called == []


@pytest.mark.parametrize(
    ("kind", "where"),
    [("def", where) for where in ("step", "atomic", "branch", "function", "check")]
    + [("async def", where) for where in ("step", "atomic", "function", "check")],
)
def test_kit_that_propagates_raises_the_error_with_its_frames(
    where: str, kind: str
) -> None:
    def body(*args: Any) -> None:
        raise ZeroDivisionError("by the body")

    def steps(ctx):
        if where == "step":
            return ctx.step.run("work", body)
        if where == "atomic":
            return ctx.step.atomic("work", body)
        if where == "branch":
            return ctx.step.map("all", lambda n: ctx.step.run("work", body), [1])
        if where == "check":
            return ctx.step.wait_for_condition("work", body, every="1m")
        return body()

    with Kit(propagate=True) as kit:

        async def asteps(ctx):
            return await steps(ctx)

        body_of = steps if kind == "def" else asteps
        run = durable.function(id="work")(body_of).enqueue()
        with pytest.raises(ZeroDivisionError, match="by the body") as caught:
            kit.run_until_idle()
        names = [
            frame.name for frame in traceback.extract_tb(caught.value.__traceback__)
        ]
        assert "body" in names
        assert ended(run).status in ("waiting", "queued"), "the step will be retried"
        assert run.attempts.get().error["type"] == "ZeroDivisionError"


def test_kit_that_propagates_leaves_the_errors_of_stubs_to_the_run(
    pay: durable.Function,
) -> None:
    with Kit(propagate=True) as kit:
        kit.stub("charge", [ConnectionError("down"), ConnectionError, ValueError])
        run = pay.enqueue()
        kit.advance("1h")
    assert ended(run).error["type"] == "ValueError"


def test_kit_that_propagates_does_so_after_a_kit_inside_it() -> None:
    with Kit(propagate=True) as outer:
        with Kit():
            pass

        @durable.function(id="work")
        def work(ctx):
            raise ZeroDivisionError

        work.enqueue()
        with pytest.raises(ZeroDivisionError):
            outer.run_until_idle()


def test_kit_that_does_not_propagate_raises_nothing(pay: durable.Function) -> None:
    with Kit() as kit:
        run = pay.enqueue()
        kit.advance("1h")
    assert ended(run).error["type"] == "AssertionError"
