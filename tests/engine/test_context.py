"""``ctx``: the attributes and methods of a function's context."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest
from pydantic import BaseModel

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.engine.conftest import Later, Start
from tests.engine.failures import Broken


class Placed(BaseModel):
    """The data of an event."""

    order_id: int
    total: float = 0


def test_context_has_the_triggering_event(start: Start, later: Later, durable_kit: Kit):
    seen = []

    @durable.function(id="tests.listening", on=durable.Event("shop/placed"))
    def listening(ctx):
        event = ctx.event
        seen.append((event.id, event.name, event.data, event.ts, event.user, event.v))
        assert ctx.events == [event]
        ctx.step.sleep("nap", 1)

    began = durable_kit.now()
    sent = durable_kit.send("shop/placed", {"n": 1}, user={"id": 3}, v="2026-01")
    durable_kit.advance(1)

    assert Run.objects.get().status == "completed"
    expected = (sent, "shop/placed", {"n": 1}, began, {"id": 3}, "2026-01")
    assert seen == [expected] * len(seen)
    assert len(seen) >= 2


def test_data_that_is_typed_by_a_schema(start: Start, durable_kit: Kit):
    @durable.function(id="tests.typed", on=durable.Event("shop/placed", schema=Placed))
    def typed(ctx):
        assert isinstance(ctx.event.data, Placed)
        return ctx.event.data.order_id + ctx.event.data.total

    durable_kit.send("shop/placed", {"order_id": 7})
    durable_kit.run_until_idle()

    assert Run.objects.get().result() == 7


def test_run_and_its_id(start: Start):
    def itself(ctx):
        assert uuid.UUID(ctx.run_id) == ctx.run.pk
        return [ctx.run_id, ctx.run.function, ctx.run.status]

    run = start(itself)
    assert run.result() == [str(run.pk), "tests.itself", "running"]


@pytest.mark.exact("it counts attempts")
def test_attempt_counts_the_failures_of_the_function(start: Start, later: Later):
    seen = []

    def failing(ctx):
        seen.append(ctx.attempt)
        if len(seen) < 3:
            raise Broken
        return ctx.attempt

    run = later(start(failing, backoff=durable.Backoff.fixed(1)), "1m")
    assert run.result() == 2
    assert seen == [0, 1, 2]


def test_attempt_inside_a_body_counts_the_failures_of_the_body(
    start: Start, later: Later
):
    seen = []

    def failing(ctx):
        def body():
            seen.append(ctx.attempt)
            if len(seen) < 3:
                raise Broken
            return ctx.attempt

        assert ctx.attempt == 0
        result = ctx.step.run("fail", body)
        assert ctx.attempt == 0
        return result

    run = later(start(failing, backoff=durable.Backoff.fixed(1)), "1m")
    assert run.result() == 2
    assert seen == [0, 1, 2]


def test_function_that_got_further_has_its_retries_back(start: Start, later: Later):
    seen = []

    def failing(ctx):
        seen.append(ctx.attempt)
        if len(seen) == 2:
            ctx.step.run("progress", lambda: 1)
        raise Broken

    run = later(start(failing, retries=1, backoff=durable.Backoff.fixed(1)), "1m")
    assert run.error["type"] == "Broken"
    assert len(seen) >= 3


def test_context_has_the_instance_whose_change_started_the_run(durable_kit: Kit):
    seen = []

    @durable.function(
        id="tests.changed", on=durable.ModelChange("shop.Tenant", created=True)
    )
    def changed(ctx):
        seen.append(None if ctx.instance is None else ctx.instance.name)
        ctx.step.sleep("nap", "1h")
        seen.append(None if ctx.instance is None else ctx.instance.name)
        ctx.step.sleep("another nap", "1h")
        return None if ctx.instance is None else ctx.instance.name

    durable_kit.run_until_idle()
    tenant = Tenant.objects.create(name="Ada")
    durable_kit.run_until_idle()
    Tenant.objects.update(name="Grace")
    durable_kit.advance("1h")
    tenant.delete()
    durable_kit.advance("1h")

    assert seen[0] == "Ada"
    assert "Grace" in seen
    assert seen[-1] is None
    assert Run.objects.get().result() is None


def test_instance_in_an_async_function_is_as_at_the_attempts_start(durable_kit: Kit):
    """An event loop runs, in which database queries are not allowed."""

    @durable.function(
        id="tests.changed", on=durable.ModelChange("shop.Tenant", created=True)
    )
    async def changed(ctx):
        before = ctx.instance.name
        await ctx.step.sleep("nap", "1h")
        return [before, ctx.instance.name]

    tenant = Tenant.objects.create(name="Ada")
    durable_kit.run_until_idle()
    Tenant.objects.filter(pk=tenant.pk).update(name="Grace")
    durable_kit.advance("1h")

    assert Run.objects.get().result()[1] == "Grace"


@pytest.mark.parametrize(
    "data",
    [
        {"model": "T", "pk": 1},
        {"model": "ford.Focus", "pk": 1},
        {"model": 7, "pk": 1},
        {"model": "shop.Tenant", "pk": "x"},
        {"model": "shop.Tenant", "pk": [1]},
    ],
)
@pytest.mark.parametrize("colour", ["def", "async def"])
def test_data_without_a_reference_is_no_instance(
    start: Start, data: dict[str, Any], colour: str
):
    def plain(ctx):
        return ctx.instance

    async def awaited(ctx):
        return ctx.instance

    assert start(plain if colour == "def" else awaited, data).result() is None


def test_instance_is_none_without_a_change(start: Start):
    def plain(ctx):
        return ctx.instance

    assert start(plain, {"a": 1}).result() is None


def test_instances_in_the_data_are_loaded_as_rows(start: Start):
    order = Order.objects.create(tenant=Tenant.objects.create(name="Ada"), total=5)

    def giving(ctx):
        found = ctx.event.data["order"]
        return [type(found).__name__, found.pk]

    assert start(giving, {"order": order}).result() == ["Order", order.pk]


# The logger


def said(caplog) -> list[str]:
    """Return the log lines of functions, without the run's id."""
    texts = [r.getMessage() for r in caplog.records if r.name == "durable_jobs.run"]
    return [text.partition("] ")[2] for text in texts if text.startswith("[run ")]


@pytest.fixture
def logs(caplog):
    """Return the log of functions."""
    caplog.set_level(logging.DEBUG, logger="durable_jobs.run")
    return caplog


def test_logger_is_silent_while_replaying(start: Start, later: Later, logs):
    def talking(ctx):
        ctx.logger.info("begin")
        ctx.step.run("one", lambda: ctx.logger.info("in one"))
        ctx.logger.info("after one")
        ctx.step.sleep("nap", "1h")
        ctx.logger.info("after the nap")
        ctx.step.run("two", lambda: ctx.logger.info("in two"))
        ctx.logger.warning("end, %s", "at last")

    run = later(start(talking), "1h")

    assert run.status == "completed"
    assert said(logs) == [
        "begin",
        "in one",
        "after one",
        "after the nap",
        "in two",
        "end, at last",
    ]


def test_logger_is_silent_while_replaying_branches_and_groups(
    start: Start, later: Later, logs
):
    def talking(ctx):
        def branch(number):
            ctx.step.run("inside", lambda: ctx.logger.info("in %d", number))
            ctx.step.run("inside again", lambda: None)

        ctx.logger.info("begin")
        ctx.step.map("branches", branch, [1, 2])
        ctx.logger.info("after the branches")
        with ctx.step.group("group"):
            ctx.step.run("inside", lambda: None)
        ctx.logger.info("after the group")
        ctx.step.sleep("nap", "1h")
        ctx.logger.info("end")

    later(start(talking), "1h")

    assert said(logs) == [
        "begin",
        "in 1",
        "in 2",
        "after the branches",
        "after the group",
        "end",
    ]


def test_retried_body_logs_again(start: Start, later: Later, logs):
    tries = []

    def talking(ctx):
        def body():
            tries.append(1)
            ctx.logger.info("try %d", len(tries))
            if len(tries) < 2:
                raise Broken

        ctx.step.run("one", body, backoff=durable.Backoff.fixed(1))

    later(start(talking), "1m")
    assert said(logs) == ["try 1", "try 2"]


def test_logger_names_the_run(start: Start, logs):
    def talking(ctx):
        ctx.logger.info("here", extra={"more": 1})

    run = start(talking)
    record = next(one for one in logs.records if one.name == "durable_jobs.run")

    assert str(run.pk) in record.getMessage()
    assert record.run_id == str(run.pk)
    assert record.function == "tests.talking"
    assert record.more == 1


# Patched


def patching(code: dict[str, bool]):
    """Return a function whose code changes in flight, and its decisions."""
    decided = []

    def changing(ctx):
        ctx.step.run("first", lambda: 1)
        ctx.step.sleep("nap", "1h")
        if code["new"]:
            decided.append(ctx.patched("change"))
            if decided[-1]:
                ctx.step.run("new", lambda: 2)
            else:
                ctx.step.run("old", lambda: 3)
        else:
            ctx.step.run("old", lambda: 3)
        ctx.step.sleep("another nap", "1h")
        return [step.name for step in ctx.run.steps.filter(kind="run")]

    return changing, decided


def test_run_that_arrives_with_the_new_code_is_patched(start: Start, later: Later):
    code = {"new": False}
    changing, decided = patching(code)
    run = start(changing)
    code["new"] = True

    assert sorted(later(run, "2h").result()) == ["first", "new"]
    assert decided == [True] * len(decided)
    assert len(decided) >= 2


def test_run_whose_history_went_past_is_not_patched(start: Start, later: Later):
    code = {"new": False}
    changing, decided = patching(code)
    run = later(start(changing), "1h")
    code["new"] = True

    assert sorted(later(run, "1h").result()) == ["first", "old"]
    assert set(decided) == {False}


def test_fresh_run_is_patched_from_its_beginning(start: Start, later: Later):
    seen = []

    def fresh(ctx):
        seen.append(ctx.patched("change"))
        ctx.step.sleep("nap", "1h")
        seen.append(ctx.patched("another"))
        ctx.step.sleep("another nap", "1h")

    assert later(start(fresh), "2h").status == "completed"
    assert set(seen) == {True}


def test_run_behind_ended_branches_is_patched(
    start: Start, later: Later, durable_kit: Kit
):
    """Steps inside branches that have ended do not count as ahead."""
    seen = []

    def behind(ctx):
        ctx.step.map("branches", lambda n: ctx.step.run("inside", lambda: n), [1, 2])
        seen.append(ctx.patched("change"))
        ctx.step.run("after", lambda: 1)

    durable_kit.crash_at("after", when="before")
    assert later(start(behind), "61s").status == "completed"
    assert set(seen) == {True}


# Features of other versions


@pytest.mark.parametrize("name", ["fetch", "ai"])
def test_step_of_a_newer_version_raises_a_clear_error(start: Start, name):
    def early(ctx):
        getattr(ctx.step, name)("x", title="x")

    run = start(early)
    assert run.error["type"] == "ConfigurationError"
    assert name in run.error["message"]


def test_step_that_never_was_is_a_plain_error(start: Start):
    def mistaken(ctx):
        ctx.step.runn("x", print)

    error = start(mistaken, retries=0).error
    assert error["type"] == "AttributeError"
    assert error["message"] == "ctx.step has no method 'runn'."
