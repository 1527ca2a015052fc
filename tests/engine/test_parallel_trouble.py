"""Branches whose worker dies, that are paused, changed or called wrongly."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from tests.engine.conftest import Configure, Later, Start

# Dying, pausing, cancelling


@pytest.mark.exact("it looks at the run while its worker is dead")
@pytest.mark.parametrize(("when", "times"), [("before", 1), ("body", 2), ("after", 1)])
def test_worker_that_dies_in_a_branch_repeats_no_sibling(
    start: Start, later: Later, durable_kit: Kit, when, times
):
    calls = []

    def dying(ctx):
        def branch(name):
            ctx.step.run(f"first {name}", calls.append, f"first {name}")
            ctx.step.run(f"second {name}", calls.append, f"second {name}")
            return name

        return ctx.step.parallel("p", [lambda n=n: branch(n) for n in "abc"])

    durable_kit.crash_at("second b", when=when)
    run = start(dying)
    assert run.status == "running", "the worker is dead, and its lease is still valid"

    assert later(run, "61s").result() == ["a", "b", "c"]
    assert calls.count("second b") == times
    calls = [call for call in calls if call != "second b"]
    assert sorted(calls) == ["first a", "first b", "first c", "second a", "second c"]


def test_run_that_is_paused_begins_no_further_branch(
    start: Start, later: Later, durable_kit: Kit
):
    calls = []

    def pausing(ctx):
        def pause():
            ctx.run.pause(reason="wait a minute")

        def plain():
            calls.append("plain")

        return ctx.step.parallel(
            "p",
            {
                "first": lambda: ctx.step.run("pause", pause),
                "steps": lambda: ctx.step.run("work", calls.append, "work"),
                "plain": plain,
            },
        )

    run = start(pausing)
    assert (run.status, run.reason) == ("paused", "wait a minute")
    assert not calls
    assert later(run, "1d").status == "paused"
    assert run.resume()
    assert later(run).status == "completed"
    assert sorted(calls) == ["plain", "work"]


def test_run_that_waits_in_its_branches_is_paused_and_resumed(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        def branch(name):
            return ctx.step.wait_for_event("wait", f"go/{name}").name

        return ctx.step.parallel("p", [lambda n=n: branch(n) for n in "ab"])

    run = start(waiting)
    run.pause()
    durable_kit.send("go/a")
    durable_kit.send("go/b")
    assert later(run, "1h").status == "paused"
    run.resume()
    assert later(run).result() == ["go/a", "go/b"]


def test_cancelling_a_run_cancels_its_branches_and_their_children(start: Start):
    @durable.function(id="tests.child")
    def child(ctx):
        ctx.step.sleep("long", "30d")

    def waiting(ctx):
        def invoke():
            ctx.step.invoke("call", child)

        ctx.step.parallel("p", [invoke, invoke, lambda: ctx.step.sleep("nap", "1d")])

    run = start(waiting)
    assert Run.objects.filter(function="tests.child", status="waiting").count() == 2

    assert run.cancel(reason="enough")
    statuses = Run.objects.filter(function="tests.child").values_list("status")
    assert set(statuses) == {("cancelled",)}
    assert set(run.steps.values_list("status", flat=True)) == {"cancelled"}


def test_run_cancelled_by_its_branch_does_nothing_more(start: Start):
    calls = []

    def cancelling(ctx):
        ctx.step.parallel(
            "p",
            [
                lambda: ctx.step.run("cancel", lambda: ctx.run.cancel(reason="no")),
                lambda: ctx.step.run("work", calls.append, 1),
            ],
        )

    run = start(cancelling)
    assert (run.status, run.reason) == ("cancelled", "no")
    assert not calls


# Code that changes


def test_branch_that_finds_another_kind_pauses_the_run(start: Start, later: Later):
    changed: list[bool] = []

    def diverging(ctx):
        def branch():
            if changed:
                ctx.step.sleep("x", 1)
            else:
                ctx.step.run("x", lambda: 1)
            ctx.step.sleep("nap", "1h")

        ctx.step.parallel("p", [branch, lambda: 1])

    run = start(diverging)
    changed.append(True)
    run = later(run, "1h")
    assert run.status == "paused"
    assert "'x'" in run.reason


def test_ended_parallel_keeps_its_results_when_branches_are_added(
    start: Start, later: Later
):
    added: list[bool] = []

    def growing(ctx):
        branches = {"a": lambda: 1, "b": lambda: 2}
        if added:
            branches = {"new": lambda: 0, **branches}
        both = ctx.step.parallel("p", branches)
        ctx.step.sleep("nap", "1h")
        return both

    run = start(growing)
    added.append(True)
    assert later(run, "1h").result() == {"a": 1, "b": 2}


# Invalid calls


WRONG = {
    "a branch that cannot be called": (([1],), {}, "callable"),
    "a branch without a name": (({"": print},), {}, "name of a branch"),
    "no branches at all": ((7,), {}, "branches"),
    "no concurrency": (([print],), {"max_concurrency": 0}, "max_concurrency"),
    "half a concurrency": (([print],), {"max_concurrency": 1.5}, "max_concurrency"),
    "no policy": (([print],), {"completion": "all"}, "AtLeast"),
    "more than there are": (
        ([print],),
        {"completion": durable.AtLeast(2)},
        "at least 2 of 1",
    ),
    "the first of none": (
        ([],),
        {"completion": durable.First()},
        "at least one branch",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_call_fails_at_once(start: Start, case):
    args, options, expected = WRONG[case]

    def mistaken(ctx):
        ctx.step.parallel("p", *args, **options)

    run = start(mistaken)
    assert run.status == "failed"
    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]


def test_branches_beyond_the_step_limit_are_refused(start: Start, configure: Configure):
    configure(MAX_STEPS=10)

    def many(ctx):
        ctx.step.parallel("p", [lambda: 1] * 10)

    run = start(many)
    assert run.status == "failed"
    assert run.error["type"] == "LimitExceeded"
    assert "MAX_STEPS" in run.error["message"]
