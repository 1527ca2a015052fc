"""The kit lets workers die at a named step, and replaces bodies by stubs."""

from __future__ import annotations

from typing import Literal

import pytest
from django.db.models import F

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant

Place = Literal["before", "body", "after"]


@pytest.fixture
def calls() -> list[str]:
    """Return the list of bodies that were called."""
    return []


@pytest.fixture
def pay(durable_kit: Kit, calls: list[str]) -> durable.Function:
    """Declare a function of two steps."""

    @durable.function(id="pay")
    def pay(ctx):
        charge = ctx.step.run("charge", lambda: calls.append("charge") or len(calls))
        ctx.step.run("ship", lambda: calls.append("ship"))
        return charge

    return pay


@pytest.mark.exact("it looks at the run while its worker is dead")
@pytest.mark.parametrize(
    ("when", "at_death", "at_the_end"),
    [
        ("before", [], ["charge", "ship"]),
        ("body", ["charge"], ["charge", "charge", "ship"]),
        ("after", ["charge"], ["charge", "ship"]),
    ],
)
def test_worker_dies_at_the_named_step(
    durable_kit: Kit,
    pay: durable.Function,
    calls: list[str],
    when: Place,
    at_death: list[str],
    at_the_end: list[str],
) -> None:
    durable_kit.crash_at("charge", when=when)
    run = pay.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert (run.status, calls) == ("running", at_death)
    assert run.steps.count() == (1 if when == "after" else 0)
    durable_kit.advance("2m")
    run.refresh_from_db()
    assert run.status == "completed"
    assert calls == at_the_end


def test_crash_at_defaults_to_after_the_body(
    durable_kit: Kit, pay: durable.Function, calls: list[str]
) -> None:
    durable_kit.crash_at("charge")
    pay.enqueue()
    durable_kit.advance("2m")
    assert calls == ["charge", "charge", "ship"]


def test_lease_must_expire_before_work_continues(
    durable_kit: Kit, pay: durable.Function, calls: list[str]
) -> None:
    durable_kit.crash_at("charge", when="before")
    pay.enqueue()
    durable_kit.advance("60s")
    assert calls == []
    durable_kit.advance("1s")
    assert calls == ["charge", "ship"]


def test_worker_dies_as_often_as_requested(
    durable_kit: Kit, pay: durable.Function, calls: list[str]
) -> None:
    durable_kit.crash_at("charge", times=3)
    durable_kit.crash_at("ship", when="before", times=1)
    run = pay.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == 4
    assert calls == ["charge"] * 4 + ["ship"]


def test_atomic_step_leaves_nothing_of_a_crash(durable_kit: Kit) -> None:
    """I3: the guard is the one transaction of body and record."""
    tenant = Tenant.objects.create(name="Ada")
    order = Order.objects.create(tenant=tenant, total=0)

    @durable.function(id="book")
    def book(ctx):
        rows = Order.objects.filter(pk=order.pk)
        for step in ("one", "two", "three"):
            ctx.step.atomic(step, lambda: rows.update(total=F("total") + 1))

    durable_kit.crash_at("one", when="before")
    durable_kit.crash_at("two", when="body", times=2)
    durable_kit.crash_at("three", when="after")
    run = book.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    order.refresh_from_db()
    assert run.status == "completed"
    assert order.total == 3


def test_other_runs_continue_while_a_worker_is_dead(
    durable_kit: Kit, pay: durable.Function
) -> None:
    durable_kit.crash_at("charge")
    victim, other = pay.enqueue(), pay.enqueue()
    durable_kit.run_until_idle()
    for run in (victim, other):
        run.refresh_from_db()
    assert [victim.status, other.status] == ["running", "completed"]


def test_branch_can_die_too(durable_kit: Kit) -> None:
    calls: list[int] = []

    @durable.function(id="fan")
    def fan(ctx):
        def branch(number):
            return ctx.step.run(
                f"part {number}", lambda: calls.append(number) or number
            )

        return ctx.step.map("all", branch, range(3))

    durable_kit.crash_at("part 1")
    run = fan.enqueue()
    durable_kit.advance("2m")
    run.refresh_from_db()
    assert run.result() == [0, 1, 2]
    assert sorted(calls) == [0, 1, 1, 2]


def test_async_function_can_die_too(durable_kit: Kit) -> None:
    calls: list[str] = []

    @durable.function(id="async")
    async def fn(ctx):
        async def body() -> str:
            calls.append("body")
            return "done"

        return await ctx.step.run("work", body)

    durable_kit.crash_at("work")
    run = fn.enqueue()
    durable_kit.advance("2m")
    run.refresh_from_db()
    assert run.result() == "done"
    assert calls == ["body", "body"]


def test_wrong_place_is_refused(durable_kit: Kit) -> None:
    with pytest.raises(durable.ConfigurationError, match="'before', 'body' or 'after'"):
        durable_kit.crash_at("charge", when="during")


def test_stub_returns_its_result(
    durable_kit: Kit, pay: durable.Function, calls: list[str]
) -> None:
    durable_kit.stub("charge", {"id": "ch_1"})
    run = pay.enqueue().wait(timeout=10)
    assert run.result() == {"id": "ch_1"}
    assert calls == ["ship"]


@pytest.mark.parametrize("result", [None, 0, False, [], "text"])
def test_stub_may_return_any_value(
    durable_kit: Kit, pay: durable.Function, result: object
) -> None:
    durable_kit.stub("charge", result)
    assert pay.enqueue().wait(timeout=10).result() == result


def test_stub_raises_an_exception(durable_kit: Kit, calls: list[str]) -> None:
    @durable.function(id="pay")
    def pay(ctx):
        try:
            ctx.step.run("charge", lambda: calls.append("charge"), retries=0)
        except durable.StepFailed as error:
            return [error.error_type, error.message]

    durable_kit.stub("charge", ConnectionError("the bank is closed"))
    result = pay.enqueue().wait(timeout=10).result()
    assert result == ["ConnectionError", "the bank is closed"]
    assert calls == []


def test_stub_can_be_changed_during_a_test(
    durable_kit: Kit, pay: durable.Function
) -> None:
    durable_kit.stub("charge", ConnectionError("the bank is closed"))
    run = pay.enqueue()
    durable_kit.run_until_idle()
    durable_kit.stub("charge", "charged")
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == "charged"
    assert run.attempts.count() == 1


def test_every_kind_of_body_can_be_stubbed(durable_kit: Kit) -> None:
    @durable.step
    def plain() -> str:
        raise AssertionError("not to be called")

    @durable.function(id="many")
    def many(ctx):
        return [
            ctx.step.run("run", plain),
            ctx.step.atomic("atomic", plain),
            ctx.step.wait_for_condition("ask", plain, every="1m"),
            plain(),
            ctx.step.map("map", lambda n: ctx.step.run(f"part {n}", plain), [0, 1]),
        ]

    durable_kit.stub("run", 1)
    durable_kit.stub("atomic", 2)
    durable_kit.stub("ask", durable.Done(3))
    durable_kit.stub("plain", 4)
    for number in range(2):
        durable_kit.stub(f"part {number}", 5 + number)
    run = many.enqueue().wait(timeout=10)
    assert run.result() == [1, 2, 3, 4, [5, 6]]


def test_async_body_can_be_stubbed(durable_kit: Kit) -> None:
    @durable.function(id="async")
    async def fn(ctx):
        async def body() -> None:
            raise AssertionError("not to be called")

        return await ctx.step.run("work", body)

    durable_kit.stub("work", "stubbed")
    assert fn.enqueue().wait(timeout=10).result() == "stubbed"


def test_stubs_and_crashes_end_with_the_kit(db: None, calls: list[str]) -> None:
    def declare() -> durable.Function:
        made: durable.Function = durable.function(id="pay")(
            lambda ctx: ctx.step.run("charge", lambda: calls.append("charge"))
        )
        return made

    with Kit(unused_stubs="ignore") as kit:
        kit.crash_at("charge")
        kit.stub("charge", "stubbed")
    with Kit():
        assert declare().enqueue().wait(timeout=10).result() is None
    assert calls == ["charge"]
    assert Run.objects.get().crash_count == 0
