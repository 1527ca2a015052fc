"""``ctx.step.group`` and the keys of steps, which identify them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from durable_jobs import durable
from durable_jobs.definitions.registry import registry
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start


def sha1(text: str) -> str:
    """Return a step's identity as documented."""
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@contextmanager
def deployed(body) -> Iterator[durable.Function]:
    """Replace the code of a function inside the block."""
    with registry.temporary():
        yield durable.function(id="tests.deployed")(body)


def test_step_key_is_the_sha1_of_its_id(start: Start):
    def named(ctx):
        ctx.step.run("charge the card", int)

    assert start(named).steps.get().key == sha1("charge the card")


def test_repeated_id_gets_a_number(start: Start, later: Later):
    def repeating(ctx):
        results = []
        for number in range(3):
            results.append(ctx.step.run("same", lambda n=number: n))
            ctx.step.sleep("nap", "1h")
        return results

    run = later(start(repeating), "3h")

    assert run.result() == [0, 1, 2]
    steps = run.steps.filter(name="same").order_by("position")
    assert [step.key for step in steps] == [
        sha1("same"),
        sha1("same:1"),
        sha1("same:2"),
    ]
    assert run.steps.filter(name="nap").count() == 3


def test_group_has_the_time_at_which_the_function_entered_it(
    start: Start, durable_kit: Kit
):
    def grouped(ctx):
        with ctx.step.group("checkout"):
            ctx.step.run("pay", int)

    group = start(grouped).steps.get(kind="group")
    assert group.started_at == group.ended_at == durable_kit.now()


def test_id_that_looks_like_a_repeat_is_a_separate_step(start: Start):
    def similar(ctx):
        first = ctx.step.run("same", lambda: "first")
        written = ctx.step.run("same:1", lambda: "written so")
        repeated = ctx.step.run("same", lambda: "repeated")
        return [first, written, repeated]

    assert start(similar).result() == ["first", "written so", "repeated"]


# Groups


def test_names_inside_a_group_are_scoped_below_it(start: Start, later: Later):
    def grouped(ctx):
        results = [ctx.step.run("work", lambda: "outside")]
        with ctx.step.group("one"):
            results.append(ctx.step.run("work", lambda: "in one"))
            ctx.step.sleep("nap", "1h")
            with ctx.step.group("two"):
                results.append(ctx.step.run("work", lambda: "in two"))
            results.append(ctx.step.run("work", lambda: "again in one"))
        ctx.step.sleep("nap", "1h")
        results.append(ctx.step.run("work", lambda: "again outside"))
        return results

    run = later(start(grouped), "2h")

    assert run.result() == [
        "outside",
        "in one",
        "in two",
        "again in one",
        "again outside",
    ]
    parents = {
        step.output: step.parent.name if step.parent else None
        for step in run.steps.filter(name="work").select_related("parent")
    }
    assert parents == {
        "outside": None,
        "in one": "one",
        "in two": "two",
        "again in one": "one",
        "again outside": None,
    }
    group = run.steps.get(name="two")
    assert (group.kind, group.status, group.parent.name) == (
        "group",
        "completed",
        "one",
    )


def test_group_that_is_entered_again_is_another_group(start: Start):
    def grouped(ctx):
        results = []
        for number in range(3):
            with ctx.step.group("round"):
                results.append(ctx.step.run("work", lambda n=number: n))
        return results

    assert start(grouped).result() == [0, 1, 2]


def test_error_in_a_group_leaves_the_group(start: Start):
    def grouped(ctx):
        try:
            with ctx.step.group("inside"):
                ctx.step.run("fail", lambda: 1 / 0, retries=0)
        except durable.StepFailed:
            return ctx.step.run("outside", lambda: "outside")

    run = start(grouped)
    assert run.result() == "outside"
    assert run.steps.get(name="outside").parent is None


def test_refused_step_in_a_group_loses_nothing_of_the_group(start: Start):
    def waiting(ctx):
        ctx.step.wait_for_signal("wait", "taken")

    def grouped(ctx):
        with ctx.step.group("inside"):
            try:
                ctx.step.wait_for_signal("wait", "taken")
            except durable.SignalTaken:
                return "taken"

    start(waiting)
    run = start(grouped)
    assert run.result() == "taken"
    assert run.steps.get(name="wait").parent == run.steps.get(name="inside")


@pytest.mark.parametrize("name", ["", 7, "x" * 256])
def test_group_needs_a_name(start: Start, name):
    def grouped(ctx):
        with ctx.step.group(name):
            pass

    run = start(grouped)
    assert run.error["type"] == "ConfigurationError"
    assert "group id" in run.error["message"]


def test_group_inside_a_body_is_refused(start: Start):
    def nesting(ctx):
        def body():
            with ctx.step.group("inner"):
                pass

        ctx.step.run("outer", body)

    run = start(nesting)
    assert run.error["type"] == "NestedStepError"
    assert not run.steps.filter(name="inner").exists()


# Code that changes while runs are in flight


def test_steps_may_be_reordered_and_inserted(start: Start, later: Later):
    calls = []

    def note(name):
        calls.append(name)
        return name

    def before(ctx):
        first = ctx.step.run("first", note, "first")
        second = ctx.step.run("second", note, "second")
        ctx.step.sleep("nap", "1h")
        return [first, second]

    def after(ctx):
        second = ctx.step.run("second", note, "second")
        new = ctx.step.run("new", note, "new")
        first = ctx.step.run("first", note, "first")
        ctx.step.sleep("nap", "1h")
        last = ctx.step.run("last", note, "last")
        return [second, new, first, last]

    with deployed(before) as function:
        run = start(function)
    with deployed(after):
        run = later(run, "1h")

    assert run.result() == ["second", "new", "first", "last"]
    assert sorted(calls) == ["first", "last", "new", "second"]


def test_branches_may_be_reordered_and_inserted(start: Start, later: Later):
    calls = []

    def branch(ctx, name):
        ctx.step.run("work", calls.append, name)
        ctx.step.sleep("nap", "1h")
        return name

    def with_branches(*names):
        def body(ctx):
            return ctx.step.parallel(
                "p", {name: lambda n=name: branch(ctx, n) for name in names}
            )

        return body

    with deployed(with_branches("a", "b")) as function:
        run = start(function)
    with deployed(with_branches("new", "b", "a")):
        run = later(run, "2h")

    assert run.result() == {"new": "new", "b": "b", "a": "a"}
    assert sorted(calls) == ["a", "b", "new"]


def test_removed_step_is_kept_and_reported(
    start: Start, later: Later, caplog: pytest.LogCaptureFixture
):
    def before(ctx):
        ctx.step.run("removed", lambda: "kept")
        ctx.step.sleep("nap", "1h")

    def after(ctx):
        ctx.step.sleep("nap", "1h")
        return "done"

    with deployed(before) as function:
        run = start(function)
    with deployed(after), caplog.at_level(logging.WARNING, "durable_jobs"):
        run = later(run, "1h")

    assert run.result() == "done"
    assert run.steps.get(name="removed").output == "kept"
    (record,) = [r for r in caplog.records if "without reaching" in r.getMessage()]
    assert "'removed'" in record.getMessage()
    assert str(run.pk) in record.getMessage()


def test_steps_below_an_ended_step_count_as_replayed(
    start: Start, later: Later, caplog: pytest.LogCaptureFixture
):
    told = []

    def nested(ctx):
        def branch(item):
            with ctx.step.group("g"):
                return ctx.step.run("work", lambda: item)

        ctx.step.map("m", branch, [1, 2])
        ctx.step.parallel(
            "first",
            [lambda: ctx.step.sleep("lost", "1d"), lambda: branch(3)],
            completion=durable.First(),
        )
        # Nothing was recorded after this point at the suspension.
        told.append(ctx.patched("new"))
        if len(told) == 1:
            raise RuntimeError("once")
        ctx.logger.warning("went on")

    with caplog.at_level(logging.WARNING, "durable_jobs"):
        run = later(start(nested, backoff=durable.Backoff.fixed(1)), "1h")

    assert run.status == "completed"
    assert set(told) == {True}
    messages = [record.getMessage() for record in caplog.records]
    assert not [message for message in messages if "without reaching" in message]
    assert [message for message in messages if "went on" in message]


def test_step_of_another_kind_pauses_the_run_and_loses_nothing(
    start: Start, later: Later
):
    def before(ctx):
        first = ctx.step.run("first", lambda: "kept")
        ctx.step.sleep("nap", "1h")
        return first

    def wrong(ctx):
        ctx.step.sleep("first", "1h")

    with deployed(before) as function:
        run = start(function)
    with deployed(wrong):
        run = later(run, "1h")

    assert run.status == "paused"
    assert "'first'" in run.reason
    assert "'run'" in run.reason
    assert "'sleep'" in run.reason
    assert run.attempts.count() == 0

    assert run.resume()
    with deployed(before):
        run = later(run)
    assert run.result() == "kept"


def test_group_may_not_become_a_step(start: Start, later: Later):
    def before(ctx):
        with ctx.step.group("x"):
            ctx.step.sleep("nap", "1h")

    def after(ctx):
        ctx.step.run("x", int)

    with deployed(before) as function:
        run = start(function)
    with deployed(after):
        run = later(run, "1h")
    assert run.status == "paused"


# @durable.step


@durable.step
def double(number: int) -> int:
    """Call a decorated step from a run."""
    return number * 2


def test_decorated_function_is_a_step_inside_a_run(start: Start, later: Later):
    def decorated(ctx):
        first = double(1)
        ctx.step.sleep("nap", "1h")
        with ctx.step.group("g"):
            second = double(number=first)
        return [first, second, double(second)]

    run = later(start(decorated), "1h")
    assert run.result() == [2, 4, 8]
    keys = run.steps.filter(name="double").order_by("position").values_list("key")
    assert [key for (key,) in keys] == [
        sha1("double"),
        sha1(f"{sha1('g')}/double"),
        sha1("double:1"),
    ]


def test_decorated_function_is_plain_outside_of_a_run():
    assert double(2) == 4
    assert double.__doc__ == "Call a decorated step from a run."


def test_decorated_function_inside_a_body_is_refused(start: Start):
    def nesting(ctx):
        ctx.step.run("outer", lambda: double(1))

    run = start(nesting)
    assert run.error["type"] == "NestedStepError"
    assert "'double'" in run.error["message"]
