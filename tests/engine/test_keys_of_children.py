"""Keys of runs that ``ctx.step.invoke`` and ``start`` create: one run for each key."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Schedule, Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused
from tests.engine.test_invoke_and_start import invoking, same
from tests.lab import checker


@pytest.fixture
def booked() -> list[Any]:
    """Return the list of calls of the keyed function."""
    return []


@pytest.fixture
def pay(durable_kit: Kit, booked: list[Any]) -> durable.Function:
    """Return a function that runs once for each order."""

    @durable.function(
        id="tests.pay",
        on=durable.Event("pay"),
        retries=0,
        idempotency=lambda event: event.data.get("order"),
    )
    def pay(ctx):
        data = ctx.event.data
        if "sleep" in data:
            ctx.step.sleep("nap", data["sleep"])
        ctx.step.run("book", lambda: booked.append(data.get("order")))
        if "fail" in data:
            raise Refused(data["fail"])
        return {"booked": data["order"]}

    made: durable.Function = pay
    return made


def children() -> list[Run]:
    return list(Run.objects.filter(function="tests.pay").order_by("pk"))


def by_invoke(ctx, pay):
    ctx.step.invoke("pay", pay, {"order": 7})


def by_start(ctx, pay):
    ctx.step.start("pay", pay, {"order": 7})


def by_event(ctx, pay):
    ctx.step.send_event("pay", durable.NewEvent("pay", {"order": 7}))


def by_enqueue(ctx, pay):
    pay.enqueue({"order": 7})


@pytest.mark.parametrize("way", [by_invoke, by_start, by_event, by_enqueue])
def test_idempotency_starts_one_run_whatever_starts_it(
    start: Start, later: Later, durable_kit: Kit, pay, booked, way
):
    @durable.function(id="tests.parent", retries=0)
    def parent(ctx):
        way(ctx, pay)

    runs = [parent.enqueue(), parent.enqueue()]
    durable_kit.run_until_idle()
    durable_kit.send("pay", {"order": 7})
    durable_kit.run_until_idle()

    assert booked == [7]
    assert len(children()) == 1
    assert {run.wait(0).status for run in runs} == {"completed"}


@pytest.mark.parametrize("kind", ["invoke", "start"])
def test_null_idempotency_key_starts_a_run_each_time(start: Start, pay, kind):
    def parent(ctx):
        for n in range(2):
            getattr(ctx.step, kind)("pay", pay, {"n": n, "sleep": "1h"})

    run = start(parent)
    assert len(children()) == (1 if kind == "invoke" else 2)
    run.cancel()


def test_invoke_waits_for_the_run_with_the_key(start: Start, later: Later, pay, booked):
    parent, seen = invoking(pay, {"order": 7, "sleep": "1h"})
    function = durable.function(id="tests.parent", retries=0)(parent)
    runs = [start(function) for _ in range(3)]
    held = pay.enqueue({"order": 7})
    assert [child.pk for child in children()] == [held.pk]
    assert held.parent_id == runs[0].pk
    checker.check()

    later(runs[0], "1h")
    details = [run.steps.get(name="call").detail["child"] for run in runs]
    assert details == [str(held.pk)] * 3
    later(runs[0], "1d")
    assert booked == [7]
    assert same(seen) == {"booked": 7}
    assert not Wait.objects.exists()
    checker.check()


def test_invoke_takes_the_result_of_a_run_that_has_ended(start: Start, later, pay):
    held = pay.enqueue({"order": 7})
    parent, seen = invoking(pay, {"order": 7})
    run = start(parent)
    assert run.steps.get(name="call").detail == {"child": str(held.pk)}
    later(run, "1d")
    assert same(seen) == {"booked": 7}


@pytest.mark.parametrize("end", ["fail", "cancel"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_invoke_fails_as_the_run_with_the_key(
    start: Start, later: Later, pay, end, before
):
    data: dict[str, Any] = {"order": 7, "sleep": "1h"}
    if end == "fail":
        data["fail"] = "no money"
    held = pay.enqueue(data)
    parent, seen = invoking(pay, data)

    def ends() -> None:
        if end == "cancel":
            held.cancel(reason="not wanted")
        else:
            later(held, "1h")

    if before:
        ends()
    run = start(parent)
    if not before:
        ends()
    later(run, "2d")

    kind, error_type, message = same(seen)
    assert kind == "InvokeFailed"
    told = {"fail": ("Refused", "no money"), "cancel": ("RunCancelled", "not wanted")}
    assert error_type == told[end][0]
    assert told[end][1] in message


def test_start_returns_the_id_of_the_run_with_the_key(start: Start, pay, booked):
    held = pay.enqueue({"order": 7})

    def parent(ctx):
        return ctx.step.start("pay", pay, {"order": 7})

    assert start(parent).result() == str(held.pk)
    assert booked == [7]


def test_run_is_cancelled_only_with_the_parent_that_started_it(start: Start, pay):
    parent, _ = invoking(pay, {"order": 7, "sleep": "1h"})
    function = durable.function(id="tests.parent", retries=0)(parent)
    first, second = start(function), start(function)

    assert second.cancel()
    assert children()[0].status == "waiting"
    assert not Wait.objects.filter(run=second).exists()
    assert first.cancel()
    assert children()[0].status == "cancelled"


def test_step_that_joined_fails_when_the_other_parent_is_cancelled(
    start: Start, later: Later, pay
):
    parent, seen = invoking(pay, {"order": 7, "sleep": "1h"})
    function = durable.function(id="tests.parent", retries=0)(parent)
    first, second = start(function), start(function)
    first.cancel()
    later(second, "2d")

    kind, error_type, _ = same(seen)
    assert (kind, error_type) == ("InvokeFailed", "RunCancelled")


@pytest.mark.parametrize("kind", ["invoke", "start"])
def test_using_key_starts_one_run(start: Start, later: Later, pay, booked, kind):
    def parent(ctx):
        for _ in range(2):
            getattr(ctx.step, kind)("pay", pay.using(key="k"), {"order": None})

    run = start(parent)
    later(run, "1s")
    (child,) = children()
    assert child.key == "k"
    assert booked == [None]
    assert pay.using(key="k").enqueue({"order": None}).pk == child.pk


@pytest.mark.parametrize("kind", ["invoke", "start"])
def test_using_key_with_other_data_fails_the_step(
    start: Start, later: Later, durable_kit: Kit, pay, booked, kind
):
    held = pay.using(key="k").enqueue({"order": 1})
    seen = []

    def parent(ctx):
        try:
            getattr(ctx.step, kind)("pay", pay.using(key="k"), {"order": 2})
        except durable.DurableError as error:
            told = (type(error).__name__, type(error.__cause__).__name__, str(error))
            seen.append((*told, getattr(error, "error_type", "")))
        ctx.step.sleep("nap", "1d")

    run = start(parent)
    assert run.steps.get(name="pay").status == "failed"
    later(run, "2d")

    name, cause, message, error_type = same(seen)
    assert name == {"invoke": "InvokeFailed", "start": "StepFailed"}[kind]
    assert cause == error_type == "DuplicateKeyError"
    assert "'k'" in message
    assert str(held.pk) in message
    assert booked == [1]


def test_key_and_idempotency_both_apply(start: Start, durable_kit: Kit, pay, booked):
    first = pay.enqueue({"order": 1})
    assert pay.using(key="k").enqueue({"order": 1}).pk == first.pk
    # The run that held the order now holds the key too.
    with pytest.raises(durable.DuplicateKeyError, match=str(first.pk)):
        pay.using(key="k").enqueue({"order": 2})
    # The refused start has claimed nothing.
    assert pay.enqueue({"order": 2}).pk != first.pk
    durable_kit.run_until_idle()
    assert booked == [1, 2]


def test_key_of_a_deleted_run_is_refused(start: Start, durable_kit: Kit, pay):
    held = pay.using(key="k").enqueue({"order": 1})
    Run.objects.filter(pk=held.pk).delete()
    with pytest.raises(durable.DuplicateKeyError, match="does not exist"):
        pay.using(key="k").enqueue({"order": 1})


@pytest.mark.parametrize("kind", ["invoke", "start"])
def test_key_that_fails_fails_the_step(start: Start, durable_kit: Kit, kind):
    @durable.function(id="tests.keyed", idempotency=lambda event: event.data["none"])
    def keyed(ctx):
        raise AssertionError

    def parent(ctx):
        getattr(ctx.step, kind)("call", keyed, {})

    assert start(parent, retries=0).error["type"] == "ExpressionError"
    assert not Run.objects.filter(function="tests.keyed").exists()


def test_invoke_of_the_run_itself_is_refused(start: Start, durable_kit: Kit):
    @durable.function(id="tests.self", retries=0, idempotency=lambda event: "one")
    def itself(ctx):
        ctx.step.invoke("self", itself, {})

    run = start(itself)
    assert run.status == "failed"
    assert "would wait for itself" in run.error["message"]


def test_invoke_in_a_circle_is_refused(start: Start, durable_kit: Kit):
    @durable.function(id="tests.one", retries=0, idempotency=lambda event: "one")
    def one(ctx):
        ctx.step.invoke("two", two, {})

    @durable.function(id="tests.two", retries=0, idempotency=lambda event: "two")
    def two(ctx):
        ctx.step.invoke("one", one, {})

    run = start(one)
    assert run.status == "failed"
    assert "would wait for itself" in run.error["message"]


@pytest.mark.parametrize("when", ["before", "body", "after"])
@pytest.mark.parametrize("kind", ["invoke", "start"])
def test_worker_death_at_a_keyed_start_starts_one_run(
    start: Start, later: Later, durable_kit: Kit, pay, booked, when, kind
):
    def parent(ctx):
        return getattr(ctx.step, kind)("pay", pay, {"order": 7, "sleep": "1h"})

    durable_kit.crash_at("pay", when=when)
    run = start(parent)
    assert len(children()) == (when == "after")
    run = later(run, "2h")

    (child,) = children()
    wanted = {"booked": 7} if kind == "invoke" else str(child.pk)
    assert run.result() == wanted
    assert booked == [7]


@pytest.mark.parametrize("when", ["before", "body", "after"])
def test_worker_death_while_joining_a_run_joins_it_again(
    start: Start, later: Later, durable_kit: Kit, pay, booked, when
):
    pay.enqueue({"order": 7, "sleep": "1h"})

    def parent(ctx):
        return ctx.step.invoke("call", pay, {"order": 7})

    durable_kit.crash_at("call", when=when)
    run = later(start(parent), "2h")
    assert run.result() == {"booked": 7}
    assert booked == [7]


def test_step_that_joined_a_run_may_time_out(start: Start, later: Later, pay, booked):
    held = pay.enqueue({"order": 7, "sleep": "3h"})
    parent, seen = invoking(pay, {"order": 7}, timeout="1h")
    run = later(start(parent), "1h")
    assert not Wait.objects.filter(run=run, kind="child").exists()
    later(run, "2h")
    held.refresh_from_db()
    assert held.status == "completed"
    later(run, "1d")
    assert same(seen)[0] == "InvokeTimeout"
    assert booked == [7]


def test_end_that_was_not_announced_is_found(
    start: Start, later: Later, durable_kit: Kit, pay
):
    """A worker with older code does not know that a run is awaited."""
    held = pay.enqueue({"order": 7, "sleep": "30m"})

    def parent(ctx):
        return ctx.step.invoke("call", pay, {"order": 7})

    run = start(parent)
    Run.objects.filter(pk=held.pk).update(awaited=False)
    run = later(run, "30m")
    assert run.status == "waiting"
    assert later(run, "1h").result() == {"booked": 7}


def test_map_of_one_key_starts_one_run(start: Start, later: Later, pay, booked):
    def parent(ctx):
        return ctx.step.map(
            "all",
            lambda n: ctx.step.invoke("call", pay, {"order": 7, "sleep": "1h"}),
            range(3),
        )

    run = later(start(parent), "2h")
    assert run.result() == [{"booked": 7}] * 3
    assert booked == [7]


def test_async_function_joins_the_run_with_the_key(
    start: Start, later: Later, pay, booked
):
    pay.enqueue({"order": 7, "sleep": "1h"})

    async def parent(ctx):
        joined = await ctx.step.invoke("call", pay, {"order": 7})
        return [joined, await ctx.step.start("start", pay, {"order": 7})]

    run = later(start(parent), "2h")
    assert run.result() == [{"booked": 7}, str(children()[0].pk)]
    assert booked == [7]


def test_cron_starts_one_run_for_each_key(start: Start, durable_kit: Kit, booked):
    tomorrow = durable_kit.now() + timedelta(days=1)
    durable_kit.travel_to(tomorrow.replace(hour=12, minute=30, second=0))

    @durable.function(
        id="tests.daily",
        on=durable.Cron("@hourly"),
        idempotency=lambda event: event.data["scheduled_at"].date().isoformat(),
    )
    def daily(ctx):
        booked.append(ctx.event.data["scheduled_at"].day)

    durable_kit.run_until_idle()
    day = durable_kit.now().day
    durable_kit.advance("5h")
    assert booked == [day]
    held = Run.objects.get(function="tests.daily")
    schedule = Schedule.objects.get(function="tests.daily")
    again = schedule.run_now()
    assert again is not None
    assert again.pk == held.pk
    durable_kit.advance("18h")
    assert len(booked) == 2
