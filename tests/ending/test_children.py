"""Children end with the run that invoked them."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Wait
from durable_jobs.testing import Kit


@pytest.fixture
def family(durable_kit: Kit) -> durable.Function:
    """Declare a function that starts one and invokes one, which invokes another."""

    @durable.function(id="grandchild", on_cancel=lambda ctx: ctx.event.data["reason"])
    def grandchild(ctx):
        ctx.step.sleep("long", "1d")
        return "grown"

    @durable.function(id="child", on_cancel=lambda ctx: ctx.event.data["reason"])
    def child(ctx):
        return ctx.step.invoke("call", grandchild)

    @durable.function(id="friend")
    def friend(ctx):
        ctx.step.sleep("long", "1d")

    @durable.function(id="parent", retries=0)
    def parent(ctx):
        ctx.step.start("go", friend)
        return ctx.step.invoke("call", child)

    return parent


def status(function: str) -> str:
    """Return the status of the one run of a function."""
    return Run.objects.get(function=function).status


def test_cancelled_parent_cancels_its_invoked_children(
    durable_kit: Kit, family: durable.Function
) -> None:
    run = family.enqueue()
    durable_kit.run_until_idle()
    assert status("grandchild") == "waiting"
    run.cancel("moving house")
    assert [status(name) for name in ("child", "grandchild")] == ["cancelled"] * 2
    # A started run is independent.
    assert status("friend") == "waiting"
    for name in ("child", "grandchild"):
        assert "parent" in Run.objects.get(function=name).reason
    durable_kit.advance("2d")
    assert status("friend") == "completed"
    assert status("parent") == "cancelled"
    assert not Wait.objects.exists()


def test_handlers_of_cancelled_children_start(
    durable_kit: Kit, family: durable.Function
) -> None:
    run = family.enqueue()
    durable_kit.run_until_idle()
    run.cancel()
    durable_kit.run_until_idle()
    for name in ("child", "grandchild"):
        told = Run.objects.get(function=f"{name}:on_cancel")
        assert told.result() == Run.objects.get(function=name).reason


def test_failed_parent_cancels_its_children(durable_kit: Kit) -> None:
    child = durable.function(id="child")(lambda ctx: ctx.step.sleep("long", "1d"))

    @durable.function(id="parent", retries=0)
    def parent(ctx):
        def fail() -> None:
            raise ValueError("no")

        ctx.step.parallel(
            "both",
            [lambda: ctx.step.invoke("call", child), lambda: ctx.step.run("x", fail)],
        )

    run = parent.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "failed"
    assert status("child") == "cancelled"


def test_child_that_was_cancelled_fails_its_parents_step(
    durable_kit: Kit, family: durable.Function
) -> None:
    run = family.enqueue()
    durable_kit.run_until_idle()
    Run.objects.get(function="child").cancel("too loud")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"] == "RunCancelled"
    assert "too loud" in run.error["message"]
    assert status("grandchild") == "cancelled"


def test_parent_may_catch_the_cancellation_of_its_child(durable_kit: Kit) -> None:
    child = durable.function(id="child")(lambda ctx: ctx.step.sleep("long", "1d"))

    @durable.function(id="parent")
    def parent(ctx):
        try:
            ctx.step.invoke("call", child)
        except durable.InvokeFailed as error:
            return [error.error_type, ctx.step.run("tidy", lambda: "tidied")]

    run = parent.enqueue()
    durable_kit.run_until_idle()
    Run.objects.get(function="child").cancel()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == ["RunCancelled", "tidied"]


def test_ended_child_is_not_cancelled(durable_kit: Kit) -> None:
    child = durable.function(id="child")(lambda ctx: 5)

    @durable.function(id="parent")
    def parent(ctx):
        ctx.step.invoke("call", child)
        ctx.step.sleep("long", "1d")

    run = parent.enqueue()
    durable_kit.run_until_idle()
    run.cancel()
    assert status("child") == "completed"
