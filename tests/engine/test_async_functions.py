"""``async def`` functions: plain asyncio over durable steps."""

from __future__ import annotations

import asyncio
import functools
import threading

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Tenant
from tests.engine.awaited import soon, triple
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


def test_steps_are_awaited_in_sequence(start: Start, later: Later):
    calls = []

    async def sequence(ctx):
        first = await ctx.step.run("first", lambda: calls.append("first") or 1)
        await ctx.step.sleep("nap", "1h")
        second = await ctx.step.run("second", lambda: calls.append("second") or 2)
        return [first, second]

    run = start(sequence)
    assert run.status == "waiting"
    assert later(run, "1h").result() == [1, 2]
    assert calls == ["first", "second"]


def test_every_kind_of_step(start: Start, later: Later, durable_kit: Kit):
    @durable.function(id="tests.child")
    async def child(ctx):
        await ctx.step.sleep("nap", "1h")
        return ctx.event.data["number"] + 1

    tokens = []
    ann = Tenant.objects.create(name="Ann")

    async def everything(ctx):
        step = ctx.step
        event = await step.wait_for_event("event", "shop/answered")
        signal = await step.wait_for_signal("signal", "go")
        model = await step.wait_for_model("model", ann, when={"name": "Ann"} and _ann())
        back = await step.wait_for_callback("back", tokens.append)
        may = await step.approve("may", "x", "shop.change_order")
        met = await step.wait_for_condition("condition", durable.Done, every="1m")
        with step.group("group"):
            bob = await step.atomic("atomic", Tenant.objects.create, name="Bob")
        called = await step.invoke("call", child, {"number": 1})
        begun = await step.start("begin", child, {"number": 1})
        sent = await step.send_event("send", durable.NewEvent("a/b"))
        either = await step.wait_for_any(
            "any", {"s": durable.SignalWait("never")}, "1h"
        )
        return [
            event.data,
            signal,
            model.name,
            back,
            may,
            met,
            bob.name,
            called,
            bool(begun),
            len(sent),
            either,
        ]

    run = start(everything)
    durable_kit.send("shop/answered", {"x": 1})
    later(run)
    durable.signal("go", 2)
    later(run)
    durable.callbacks.succeed(tokens[0].token, 3)
    later(run)
    durable_kit.approve("may")
    assert later(run, "3h").result() == [
        {"x": 1},
        2,
        "Ann",
        3,
        {},
        None,
        "Bob",
        2,
        True,
        1,
        (None, None),
    ]


def _ann():
    from django.db.models import Q

    return Q(name="Ann")


def test_async_and_sync_bodies(start: Start):
    async def mixed(ctx):
        return [
            await ctx.step.run("async", soon, 1),
            await ctx.step.run("sync", lambda: 2),
            await ctx.step.run("partial", functools.partial(soon, 3)),
        ]

    assert start(mixed).result() == [1, 2, 3]


@pytest.mark.exact("a body whose sibling's commit fails is called again")
def test_orm_in_bodies(start: Start, later: Later):
    async def create(name):
        tenant = await Tenant.objects.acreate(name=name)
        return (await Tenant.objects.aget(pk=tenant.pk)).name

    async def storing(ctx):
        names = await asyncio.gather(
            ctx.step.run("async", create, "Ann"),
            ctx.step.run("sync", lambda: Tenant.objects.create(name="Bob").name),
            ctx.step.run("instance", Tenant.objects.create, name="Cid"),
        )
        await ctx.step.sleep("nap", "1h")
        return [*names[:2], names[2].name]

    assert later(start(storing), "1h").result() == ["Ann", "Bob", "Cid"]
    assert Tenant.objects.count() == 3


def test_retries_and_timeouts_of_async_bodies(start: Start, later: Later):
    calls = []

    async def flaky():
        calls.append("flaky")
        if len(calls) < 3:
            raise Refused("not yet")
        return "at last"

    async def hanging():
        await asyncio.Event().wait()

    async def trying(ctx):
        backoff = durable.Backoff.fixed("1m")
        try:
            await ctx.step.run("hang", hanging, timeout="10ms", retries=0)
        except durable.StepTimeout as error:
            return [error.error_type, await ctx.step.run("try", flaky, backoff=backoff)]

    assert later(start(trying), "2m").result() == ["StepTimeout", "at last"]
    assert len(calls) == 3


def test_async_body_is_cancelled_at_its_timeout_before_the_next_step(start: Start):
    order = []

    async def hanging():
        try:
            await asyncio.Event().wait()
        finally:
            order.append("cancelled")

    async def trying(ctx):
        try:
            await ctx.step.run("hang", hanging, timeout="10ms", retries=0)
        except durable.StepTimeout:
            await ctx.step.run("next", lambda: order.append("next"))

    assert start(trying).status == "completed"
    assert order == ["cancelled", "next"]


def test_body_that_cancels_itself_fails(start: Start):
    async def body():
        raise asyncio.CancelledError

    async def cancelled(ctx):
        await ctx.step.run("cancel", body, retries=0)

    run = start(cancelled, retries=0)
    assert run.status == "failed"
    assert run.error["type"] == "CancelledError"


def test_function_that_cancels_itself_fails(start: Start):
    async def cancelled(ctx):
        raise asyncio.CancelledError

    run = start(cancelled, retries=0)
    assert run.status == "failed"
    assert run.error["type"] == "CancelledError"


def test_decorated_async_function_is_a_step(start: Start, later: Later):
    async def decorated(ctx):
        first = await triple(1)
        await ctx.step.sleep("nap", "1h")
        return await asyncio.gather(triple(first), triple(number=first + 1))

    run = later(start(decorated), "1h")
    assert run.result() == [9, 12]
    assert run.steps.filter(name="triple").count() == 3


def test_decorated_async_function_is_plain_outside_of_a_run():
    assert asyncio.run(triple(2)) == 6


# Timeouts


def test_wait_for_a_step_may_time_out(start: Start, later: Later):
    async def waiting(ctx):
        result = await asyncio.wait_for(ctx.step.run("work", soon, 1), 3600)
        # The timeout counts the worker's time, and a suspended step uses none.
        await asyncio.wait_for(ctx.step.sleep("nap", "30d"), 3600)
        return result

    assert later(start(waiting), "30d").result() == 1


def test_step_that_is_no_longer_awaited_is_recorded(start: Start, later: Later):
    go, calls = threading.Event(), []

    async def body():
        calls.append(1)
        while not go.is_set():
            await asyncio.sleep(0)
        return "late"

    async def giving_up(ctx):
        try:
            await asyncio.wait_for(ctx.step.run("slow", body), 0.01)
        except TimeoutError:
            go.set()
        await ctx.step.sleep("nap", "1h")
        return await ctx.step.run("read", lambda: Run.objects.get().steps.count())

    run = later(start(giving_up), "1h")
    assert run.status == "completed"
    assert run.steps.get(name="slow").output == "late"
    assert calls == [1]


def test_step_in_a_cleanup_at_a_suspension_is_not_executed(start: Start, later: Later):
    calls, errors = [], []

    async def cleaning(ctx):
        try:
            await ctx.step.sleep("nap", "1h")
        except BaseException as error:
            errors.append(error)
            raise
        finally:
            await ctx.step.run("clean up", calls.append, len(calls))
        return "done"

    run = start(cleaning)
    assert not calls
    assert later(run, "1h").result() == "done"
    assert calls == [0]
