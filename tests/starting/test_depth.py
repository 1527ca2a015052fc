"""The maximum depth of events and runs that cause one another."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from project.shop.models import Tenant


@pytest.fixture(autouse=True)
def limit(settings: Settings) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "MAX_DEPTH": 5}


def depths() -> list[int]:
    return list(Run.objects.order_by("pk").values_list("depth", flat=True))


def error_of_last() -> dict[str, Any]:
    failed = Run.objects.filter(status="failed").order_by("pk").first()
    assert failed is not None
    return failed.error or {}


@pytest.mark.parametrize("how", ["step", "body", "function"])
def test_event_that_starts_its_own_sender_ends(durable_kit: Kit, how: str) -> None:
    @durable.function(id="loops", on=durable.Event("a/again"), retries=0)
    def loops(ctx):
        if how == "step":
            ctx.step.send_event("send", durable.NewEvent("a/again", {}))
        elif how == "body":
            ctx.step.run("send", lambda: durable.send("a/again", {}), retries=0)
        else:
            durable.send("a/again", {})

    durable_kit.send("a/again", {})
    durable_kit.run_until_idle()
    assert depths() == [0, 1, 2, 3, 4, 5]
    assert list(Event.objects.order_by("pk").values_list("depth", flat=True)) == (
        depths()
    )
    assert Run.objects.filter(status="failed").count() == 1
    last = Run.objects.order_by("pk").last()
    message = error_of_last()["message"]
    assert "MAX_DEPTH" in message
    assert f"loops (run {last.pk})" in message
    assert "event a/again" in message


def test_function_that_invokes_itself_ends(durable_kit: Kit) -> None:
    @durable.function(id="loops", retries=0)
    def loops(ctx):
        return ctx.step.invoke("self", "loops")

    run = loops.enqueue()
    durable_kit.run_until_idle()
    assert depths() == [0, 1, 2, 3, 4, 5]
    assert Run.objects.filter(status="failed").count() == 6, (
        "each run records its parent"
    )
    last = Run.objects.get(depth=5)
    assert last.error["type"] == "LimitExceeded"
    assert f"loops (run {last.pk}) → loops" in last.error["message"]
    run.refresh_from_db()
    assert run.status == "failed"


@pytest.mark.parametrize("how", ["start", "enqueue", "rerun"])
def test_function_that_starts_itself_ends(durable_kit: Kit, how: str) -> None:
    @durable.function(id="loops", retries=0)
    def loops(ctx):
        if how == "start":
            ctx.step.start("self", "loops")
        elif how == "enqueue":
            ctx.step.run("self", lambda: str(loops.enqueue().pk), retries=0)
        else:
            ctx.step.run("self", lambda: str(ctx.run.rerun().pk), retries=0)

    loops.enqueue()
    durable_kit.run_until_idle()
    assert depths() == [0, 1, 2, 3, 4, 5]
    assert "MAX_DEPTH" in error_of_last()["message"]


def test_branches_and_async_functions_are_counted(durable_kit: Kit) -> None:
    @durable.function(id="awaits", on=durable.Event("a/again"), retries=0)
    async def awaits(ctx):
        async def body():
            await durable.asend("a/again", {})

        await ctx.step.run("send", body, retries=0)

    durable_kit.send("a/again", {})
    durable_kit.run_until_idle()
    assert depths() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("threads", [0, 4])
def test_parallel_branches_are_counted(
    durable_kit: Kit, settings: Settings, threads: int
) -> None:
    @durable.function(id="loops", retries=0)
    def loops(ctx):
        branch = lambda: ctx.step.invoke("self", "loops")  # noqa: E731
        return ctx.step.parallel("all", [branch])

    loops.enqueue()
    durable_kit.run_until_idle()
    assert depths() == [0, 1, 2, 3, 4, 5]


def test_model_change_that_triggers_itself_ends(
    durable_kit: Kit, transactional_db: None
) -> None:
    @durable.function(
        id="renames", on=durable.ModelChange("shop.Tenant", updated=True), retries=0
    )
    def renames(ctx):
        def rename():
            tenant = Tenant.objects.get(pk=ctx.event.data["pk"])
            tenant.name += "."
            tenant.save()

        ctx.step.run("rename", rename, retries=0)

    tenant = Tenant.objects.create(name="Ada")
    tenant.name = "Bob"
    tenant.save()
    durable_kit.run_until_idle()
    assert depths() == [0, 1, 2, 3, 4, 5]


def test_debounced_event_keeps_its_depth(durable_kit: Kit) -> None:
    @durable.function(
        id="loops",
        on=durable.Event("a/again"),
        debounce=durable.Debounce("1s"),
        retries=0,
    )
    def loops(ctx):
        ctx.step.send_event("send", durable.NewEvent("a/again", {}))

    durable_kit.send("a/again", {})
    durable_kit.advance("1m")
    assert depths() == [0, 1, 2, 3, 4, 5]


def test_handler_of_the_deepest_run_is_not_started(
    durable_kit: Kit, caplog: pytest.LogCaptureFixture
) -> None:
    handler = durable.function(id="handler", on_complete=None)(
        lambda ctx: durable.send("a/again", {})
    )
    durable.function(id="loops", on=durable.Event("a/again"), on_complete=handler)(
        lambda ctx: None
    )
    durable_kit.send("a/again", {})
    durable_kit.run_until_idle()
    assert max(depths()) == 5
    assert "MAX_DEPTH" in caplog.text + str(error_of_last() if _failed() else "")


def _failed() -> bool:
    return Run.objects.filter(status="failed").exists()


def test_rerun_and_a_redrive_are_as_deep_as_their_run(durable_kit: Kit) -> None:
    @durable.function(id="fails", on=durable.Event("a/go"), retries=0)
    def fails(ctx):
        raise ValueError("no")

    @durable.function(id="sends")
    def sends(ctx):
        ctx.step.send_event("send", durable.NewEvent("a/go", {}))

    sends.enqueue()
    durable_kit.run_until_idle()
    run = Run.objects.get(function="fails")
    assert run.depth == 1
    assert run.rerun().depth == 1
    assert run.redrive()
    assert Run.objects.get(pk=run.pk).depth == 1


def test_many_runs_started_by_one_run_are_not_deep(durable_kit: Kit) -> None:
    child = durable.function(id="child")(lambda ctx: None)

    @durable.function(id="parent")
    def parent(ctx):
        for number in range(20):
            ctx.step.invoke(f"child {number}", child)

    parent.enqueue()
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 21
