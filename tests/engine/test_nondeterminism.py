"""Code that changes while runs are in flight."""

from __future__ import annotations

import contextlib
import logging
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start


class Code:
    """A function whose body can be replaced in flight."""

    def __init__(self, body: Any) -> None:
        self.body = body

    def __call__(self, ctx: Any) -> Any:
        """Call the current body."""
        return self.body(ctx)


@pytest.fixture
def deployed(durable_kit: Kit) -> tuple[Code, durable.Function]:
    """Return a function with replaceable code."""
    code = Code(None)

    @durable.function(id="tests.changing", retries=0)
    def changing(ctx):
        return code.body(ctx)

    return code, changing


KINDS = {
    "run": lambda step: step.run("the step", lambda: 1),
    "atomic": lambda step: step.atomic("the step", lambda: 1),
    "sleep": lambda step: step.sleep("the step", "1h"),
    "event": lambda step: step.wait_for_event("the step", "a/b"),
    "signal": lambda step: step.wait_for_signal("the step", "signal"),
    "approve": lambda step: step.approve("the step", "x", "shop.change_order"),
    "condition": lambda step: step.wait_for_condition(
        "the step", durable.Done, every=1
    ),
    "start": lambda step: step.start("the step", "tests.changing"),
    "send": lambda step: step.send_event("the step", durable.NewEvent("a/b")),
    "map": lambda step: step.map("the step", str, [1]),
    "group": lambda step: step.group("the step").__enter__(),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "run"])
def test_step_replayed_as_another_kind_pauses_the_run(
    start: Start, later: Later, deployed, kind
):
    code, changing = deployed

    def before(ctx):
        ctx.step.run("the step", lambda: 1)
        ctx.step.sleep("nap", "1h")
        return "before"

    def after(ctx):
        KINDS[kind](ctx.step)
        ctx.step.sleep("nap", "1h")
        return "after"

    code.body = before
    run = start(changing)
    code.body = after
    run = later(run, "1h")

    assert run.status == "paused"
    assert run.lease_token is None
    assert "'the step'" in run.reason
    assert "'run'" in run.reason
    assert "tests.changing" in run.reason

    code.body = before
    assert run.resume()
    assert later(run).result() == "before"


def test_wait_replayed_as_another_kind_loses_nothing(
    start: Start, later: Later, durable_kit: Kit, deployed
):
    code, changing = deployed

    def before(ctx):
        ctx.step.sleep("nap", "1h")
        return ctx.step.wait_for_event("wait", "shop/paid").data

    def after(ctx):
        ctx.step.sleep("nap", "1h")
        return ctx.step.wait_for_signal("wait", "paid")

    code.body = before
    run = later(start(changing), "1h")
    code.body = after
    durable_kit.send("shop/paid", {"n": 1})
    assert later(run).status == "paused"
    code.body = before
    run.resume()

    assert later(run).result() == {"n": 1}


def test_nondeterminism_error_cannot_be_swallowed(start: Start, later: Later, deployed):
    code, changing = deployed
    calls = []

    def before(ctx):
        ctx.step.run("the step", lambda: 1)
        ctx.step.sleep("nap", "1h")

    def after(ctx):
        for attempt in range(3):
            try:
                ctx.step.sleep("the step", 1)
            except Exception:  # noqa: BLE001  # as a careless function does
                ctx.step.run(f"careless {attempt}", lambda: calls.append(1))
        return "swallowed"

    code.body = before
    run = start(changing)
    code.body = after
    run = later(run, "1h")

    assert run.status == "paused"
    assert not calls
    assert set(run.steps.values_list("name", flat=True)) == {"the step", "nap"}


def test_nondeterminism_in_a_branch_pauses_the_whole_run(
    start: Start, later: Later, deployed
):
    code, changing = deployed

    def before(ctx):
        def branch(n):
            ctx.step.run("the step", lambda: n)
            ctx.step.sleep("nap", "1h")
            return n

        return ctx.step.map("all", branch, [1, 2])

    def after(ctx):
        return ctx.step.map("all", lambda n: ctx.step.sleep("the step", n), [1, 2])

    code.body = before
    run = start(changing)
    code.body = after
    run = later(run, "1h")
    assert run.status == "paused"

    code.body = before
    run.resume()
    assert later(run).result() == [1, 2]


def test_diverged_run_may_be_cancelled_or_rerun(start: Start, later: Later, deployed):
    code, changing = deployed

    def before(ctx):
        ctx.step.run("the step", lambda: 1)
        ctx.step.sleep("nap", "1h")

    def after(ctx):
        ctx.step.sleep("the step", "1h")
        return "after"

    code.body = before
    run = start(changing)
    code.body = after
    run = later(run, "1h")
    again = run.rerun()
    assert run.cancel()

    assert later(again, "1h").result() == "after"
    assert later(run).status == "cancelled"


# Allowed changes


def test_steps_may_be_put_in_another_order(start: Start, later: Later, deployed):
    code, changing = deployed
    calls: list[str] = []

    def step(ctx, name):
        return ctx.step.run(name, lambda: calls.append(name) or name)

    def before(ctx):
        step(ctx, "a"), step(ctx, "b"), step(ctx, "c")
        ctx.step.sleep("nap", "1h")

    def after(ctx):
        found = [step(ctx, "c"), step(ctx, "a"), step(ctx, "b")]
        ctx.step.sleep("nap", "1h")
        return found

    code.body = before
    run = start(changing)
    code.body = after

    assert later(run, "1h").result() == ["c", "a", "b"]
    assert calls == ["a", "b", "c"]


def test_step_may_be_inserted(start: Start, later: Later, deployed):
    code, changing = deployed
    calls: list[str] = []

    def step(ctx, name):
        return ctx.step.run(name, lambda: calls.append(name) or name)

    def before(ctx):
        step(ctx, "a"), step(ctx, "b")
        ctx.step.sleep("nap", "1h")

    def after(ctx):
        found = [step(ctx, "a"), step(ctx, "between"), step(ctx, "b")]
        ctx.step.sleep("nap", "1h")
        return found

    code.body = before
    run = start(changing)
    code.body = after

    assert later(run, "1h").result() == ["a", "between", "b"]
    assert calls == ["a", "b", "between"]


@pytest.mark.exact("it counts warnings")
def test_removed_step_is_kept_and_reported(
    start: Start, later: Later, deployed, caplog
):
    code, changing = deployed

    def before(ctx):
        ctx.step.run("kept", lambda: 1)
        ctx.step.run("taken out", lambda: 2)
        ctx.step.sleep("nap", "1h")

    def after(ctx):
        ctx.step.run("kept", lambda: 1)
        ctx.step.sleep("nap", "1h")
        return "after"

    code.body = before
    run = start(changing)
    code.body = after
    run = later(run, "1h")

    assert run.result() == "after"
    assert run.steps.get(name="taken out").output == 2
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 1
    assert "'taken out'" in told[0]
    assert "'kept'" not in told[0]
    assert str(run.pk) in told[0]


def test_removed_wait_is_kept_and_does_not_block_the_run(
    start: Start, later: Later, deployed
):
    code, changing = deployed

    def before(ctx):
        ctx.step.parallel(
            "both",
            [
                lambda: ctx.step.wait_for_event("wait", "a/b"),
                lambda: ctx.step.sleep("nap", "1h"),
            ],
        )

    def after(ctx):
        ctx.step.sleep("another nap", "1h")
        return "after"

    code.body = before
    run = start(changing)
    code.body = after
    run = later(run, "3h")

    assert run.result() == "after"
    assert not Wait.objects.exists()


@pytest.mark.exact("it counts warnings")
def test_steps_inside_branches_and_groups_are_not_reported(
    start: Start, later: Later, caplog
):
    def nested(ctx):
        def branch(n):
            with ctx.step.group("group"):
                ctx.step.run("inside", lambda: n)
            return ctx.step.map("deeper", lambda m: ctx.step.run("x", lambda: m), [n])

        ctx.step.map("all", branch, [1, 2])
        with contextlib.suppress(durable.ParallelError):
            ctx.step.parallel(
                "failing",
                [
                    lambda: ctx.step.run("fails", lambda: 1 / 0, retries=0),
                    lambda: ctx.step.sleep("long", "1d"),
                ],
            )
        ctx.step.parallel(
            "race",
            [
                lambda: ctx.step.sleep("slow", "1d"),
                lambda: ctx.step.run("quick", lambda: 1),
            ],
            completion=durable.First(),
        )
        ctx.step.sleep("nap", "1h")
        return "done"

    run = later(start(nested), "1h")

    assert run.result() == "done"
    assert "without reaching" not in caplog.text


def test_run_of_a_function_that_the_code_no_longer_has_stays_queued(
    start: Start, later: Later, durable_kit: Kit
):
    from durable_jobs.definitions.registry import registry

    with registry.temporary():

        @durable.function(id="tests.going")
        def going(ctx):
            ctx.step.sleep("nap", "1h")
            return "still here"

        run = start(going)
    run = later(run, "1h")
    assert run.status == "queued"

    @durable.function(id="tests.going")
    def back(ctx):
        ctx.step.sleep("nap", "1h")
        return "back again"

    assert later(run, "1m").result() == "back again"
