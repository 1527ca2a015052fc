"""Branches that have not ended when the batch is decided."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


def test_losers_are_cancelled_with_all_their_waits(
    start: Start, later: Later, durable_kit: Kit
):
    calls = []

    @durable.function(id="tests.child")
    def child(ctx):
        ctx.step.invoke("below", grandchild)

    @durable.function(id="tests.grandchild")
    def grandchild(ctx):
        ctx.step.sleep("long", "30d")

    def fail():
        raise Refused

    def racing(ctx):
        step = ctx.step

        def invoking():
            step.run("before", calls.append, "before")
            step.invoke("call", child)
            step.run("after", calls.append, "after")

        branches = {
            "winner": lambda: step.sleep("short", "1h") or "won",
            "sleeping": lambda: step.sleep("nap", "2h"),
            "event": lambda: step.wait_for_event("ask", "never/sent", timeout="3h"),
            "signal": lambda: step.wait_for_signal("sign", "never"),
            "callback": lambda: step.wait_for_callback("back", timeout="3h"),
            "asked": lambda: step.approve("may", "x", "shop.change_order", None, "3h"),
            "child": invoking,
            "retrying": lambda: step.run("fail", fail),
            "plain": fail,
            "nested": lambda: step.map("m", lambda i: step.sleep("s", "9h"), [1, 2]),
        }
        first = step.parallel("race", branches, completion=durable.First())
        step.sleep("rest", "1d")
        return first

    backoff = durable.Backoff.fixed("5h")
    run = later(start(racing, backoff=backoff), "1h")

    assert run.status == "waiting"
    wait = Wait.objects.get()
    assert wait.run == run
    assert run.steps.exclude(status__in=["completed", "cancelled"]).get().name == "rest"
    statuses = dict(run.steps.values_list("name", "status"))
    lost = {"nap", "ask", "sign", "back", "may", "call", "fail", "m", "s", *list("01")}
    lost |= {
        "sleeping",
        "event",
        "signal",
        "callback",
        "asked",
        "child",
        "retrying",
        "plain",
    }
    assert {name for name, status in statuses.items() if status == "cancelled"} == {
        *lost,
        "nested",
    }
    children = Run.objects.exclude(pk=run.pk)
    assert [child.status for child in children] == ["cancelled", "cancelled"]
    assert durable.signal("never", "anyone?") is None

    assert later(run, "2d").result() == "won"
    assert calls == ["before"]


@pytest.mark.exact("it asks what one attempt leaves")
def test_losers_of_the_very_attempt_that_decides_are_cancelled(start: Start):
    def racing(ctx):
        first = ctx.step.parallel(
            "race",
            [lambda: ctx.step.sleep("nap", "1h"), lambda: ctx.step.run("now", int)],
            completion=durable.First(),
        )
        ctx.step.wait_for_event("rest", "go/on")
        return first

    run = start(racing)

    assert Wait.objects.get().kind == "event"
    statuses = dict(run.steps.values_list("name", "status"))
    assert statuses == {
        "race": "completed",
        "0": "cancelled",
        "nap": "cancelled",
        "1": "completed",
        "now": "completed",
        "rest": "waiting",
    }


def test_branch_that_had_not_begun_never_does(start: Start):
    calls = []

    def racing(ctx):
        return ctx.step.map(
            "race", calls.append, range(5), completion=durable.AtLeast(2)
        )

    assert start(racing).result() == [None, None]
    assert calls == [0, 1]


@pytest.mark.exact("it asks what one attempt leaves")
def test_failed_attempts_of_a_loser_are_kept(start: Start):
    def fail():
        raise Refused("once")

    def racing(ctx):
        return ctx.step.parallel("p", [fail, lambda: 1], completion=durable.First())

    run = start(racing)
    assert run.result() == 1
    assert [attempt.error["message"] for attempt in run.attempts.all()] == ["once"]
