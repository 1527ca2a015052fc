"""Completion policies: which items may fail, and the result."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.exceptions import BranchCancelled
from durable_jobs.testing import Kit
from tests.engine.batches import refusing, told
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused

# All: every item


def test_all_policy_fails_at_the_first_failure(
    start: Start, later: Later, durable_kit: Kit
):
    def failing(ctx):
        each = refusing(ctx, 2, after=lambda item: f"{item}h")
        return ctx.step.map("each", each, [1, 2, 3])

    began = durable_kit.now()
    run = later(start(failing), "1d")

    assert run.status == "failed"
    assert run.error["type"] == "ParallelError"
    assert "1 of 3" in run.error["message"]
    assert "not 2" in run.error["message"]
    assert (run.ended_at - began).total_seconds() == 2 * 3600


def test_batch_error_has_every_items_result_the_same_in_replay(
    start: Start, later: Later
):
    seen = []

    def catching(ctx):
        each = refusing(ctx, 2, after=lambda item: f"{item}h")
        try:
            ctx.step.map("each", each, [1, 2, 3])
        except durable.ParallelError as error:
            seen.append((str(error), told(error.results)))
        ctx.step.sleep("nap", "1h")
        return "went on"

    assert later(start(catching), "1d").result() == "went on"
    assert len(seen) >= 2
    assert all(one == seen[0] for one in seen)
    assert seen[0][1] == [10, ["StepFailed", "Refused", "not 2"], "BranchCancelled"]


def test_results_of_named_branches_are_named(start: Start):
    def catching(ctx):
        each = refusing(ctx, 2)
        try:
            ctx.step.parallel("p", {"a": lambda: 10, "b": lambda: each(2)})
        except durable.ParallelError as error:
            return told(error.results)

    assert start(catching).result() == {
        "a": 10,
        "b": ["StepFailed", "Refused", "not 2"],
    }


def test_errors_of_branches_keep_their_kind_and_their_cause(start: Start, later: Later):
    seen = []

    @durable.function(id="tests.child", retries=0)
    def child(ctx):
        raise Refused("the child's")

    def fail():
        raise Refused("the body's")

    def catching(ctx):
        branches = {
            "body": lambda: ctx.step.run("fail", fail, retries=0),
            "plain": fail,
            "child": lambda: ctx.step.invoke("call", child),
            "time": lambda: ctx.step.invoke("call", sleeper, timeout="1h"),
        }
        results = ctx.step.parallel("p", branches, return_exceptions=True)
        seen.append({name: describe(error) for name, error in results.items()})
        ctx.step.sleep("nap", 1)

    @durable.function(id="tests.sleeper")
    def sleeper(ctx):
        ctx.step.sleep("long", "2d")

    def describe(error):
        return type(error), error.error_type, type(error.__cause__)

    assert later(start(catching, retries=0), "1d").status == "completed"
    assert seen[0] == {
        "body": (durable.StepFailed, "Refused", Refused),
        "plain": (durable.StepFailed, "Refused", Refused),
        "child": (durable.InvokeFailed, "Refused", type(None)),
        "time": (durable.InvokeTimeout, "InvokeTimeout", type(None)),
    }
    assert all(one == seen[0] for one in seen)


def test_nested_batch_has_its_results_too(start: Start, later: Later):
    seen = []

    def catching(ctx):
        each = refusing(ctx, 2, after=lambda item: f"{item}h")
        try:
            ctx.step.map("outer", lambda _: ctx.step.map("inner", each, [1, 2]), [0])
        except durable.ParallelError as error:
            (inner,) = error.results
            seen.append((type(inner), told(inner.results)))
        ctx.step.sleep("nap", 1)

    assert later(start(catching), "3h").status == "completed"
    expected = [10, ["StepFailed", "Refused", "not 2"]]
    assert len(seen) >= 2
    assert all(one == (durable.ParallelError, expected) for one in seen)


# First


def test_first_is_the_result_of_the_first_that_succeeds(
    start: Start, later: Later, durable_kit: Kit
):
    seen = []

    def racing(ctx):
        each = refusing(ctx, 1, after=lambda item: f"{item}h")
        first = ctx.step.map("each", each, [3, 1, 2], completion=durable.First())
        seen.append(first)
        ctx.step.sleep("nap", "2h")
        return first

    run = later(start(racing), "3h")
    assert seen == [20]
    assert later(run, "1h").result() == 20


def test_first_fails_when_all_have_failed(start: Start):
    def racing(ctx):
        each = refusing(ctx, 1, 2)
        try:
            ctx.step.map("each", each, [1, 2], completion=durable.First())
        except durable.ParallelError as error:
            return told(error.results)

    refused = ["StepFailed", "Refused"]
    assert start(racing).result() == [[*refused, "not 1"], [*refused, "not 2"]]


# AtLeast


def test_at_least_returns_the_successful_ones_in_order(start: Start, later: Later):
    def some(ctx):
        each = refusing(ctx, 1, after=lambda item: f"{item}h")
        items = [4, 3, 2, 1]
        return ctx.step.map("each", each, items, completion=durable.AtLeast(2))

    run = later(start(some), "3h")
    assert run.result() == [30, 20]


def test_at_least_fails_when_too_few_are_left(start: Start, later: Later):
    def some(ctx):
        each = refusing(ctx, 1, 2, after=lambda item: f"{item}h")
        try:
            ctx.step.map("each", each, [1, 2, 3], completion=durable.AtLeast(2))
        except durable.ParallelError as error:
            return told(error.results)

    refused = ["StepFailed", "Refused"]
    assert later(start(some), "2h").result() == [
        [*refused, "not 1"],
        [*refused, "not 2"],
        "BranchCancelled",
    ]


# Tolerate


TOLERATED = {
    "a number": (durable.Tolerate(failures=2), 2),
    "none": (durable.Tolerate(failures=0), 0),
    "a share": (durable.Tolerate(percent=50), 2),
    "a share that is no whole number": (durable.Tolerate(percent=70), 2),
    "all": (durable.Tolerate(percent=100), 4),
    "the stricter of two": (durable.Tolerate(failures=3, percent=25), 1),
}


@pytest.mark.parametrize("case", TOLERATED)
def test_tolerate_returns_the_successful_ones(start: Start, case):
    policy, failures = TOLERATED[case]

    def tolerant(ctx):
        each = refusing(ctx, *range(failures))
        return ctx.step.map("each", each, range(4), completion=policy)

    assert start(tolerant).result() == [item * 10 for item in range(failures, 4)]


@pytest.mark.parametrize("case", [case for case in TOLERATED if case != "all"])
def test_tolerate_fails_at_one_failure_more(start: Start, later: Later, case):
    policy, failures = TOLERATED[case]

    def tolerant(ctx):
        # The last item would never end: enough failures decide before.
        each = refusing(ctx, *range(failures + 1), after=lambda item: item // 3 * 99)
        ctx.step.map("each", each, range(4), completion=policy)

    run = start(tolerant)
    assert run.status == "failed"
    assert f"{failures + 1} of 4" in run.error["message"]


def test_tolerate_waits_for_all_that_may_still_succeed(start: Start, later: Later):
    def tolerant(ctx):
        each = refusing(ctx, 1, after=lambda item: f"{item}h")
        policy = durable.Tolerate(failures=2)
        return ctx.step.map("each", each, [1, 2, 3], completion=policy)

    run = later(start(tolerant), "2h")
    assert run.status == "waiting"
    assert later(run, "1h").result() == [20, 30]


WRONG_POLICIES = {
    "no number": lambda: durable.AtLeast(0),
    "half a number": lambda: durable.AtLeast(1.5),
    "nothing tolerated": lambda: durable.Tolerate(),
    "negative failures": lambda: durable.Tolerate(failures=-1),
    "failures in words": lambda: durable.Tolerate(failures="2"),
    "more than all": lambda: durable.Tolerate(percent=101),
}


@pytest.mark.parametrize("case", WRONG_POLICIES)
def test_invalid_policy_is_refused_with_what_was_expected(case):
    with pytest.raises(durable.ConfigurationError, match="Expected"):
        WRONG_POLICIES[case]()


# Exceptions as values


def test_return_exceptions_returns_every_result_or_exception(
    start: Start, later: Later
):
    seen = []

    def all_of_them(ctx):
        each = refusing(ctx, 2, after=lambda item: f"{item}h")
        results = ctx.step.map("each", each, [1, 2, 3], return_exceptions=True)
        seen.append(told(results))
        ctx.step.sleep("nap", 1)

    assert later(start(all_of_them), "4h").status == "completed"
    assert len(seen) >= 2
    expected = [10, ["StepFailed", "Refused", "not 2"], 30]
    assert all(one == expected for one in seen)


def test_return_exceptions_shows_which_branches_were_cancelled(
    start: Start, later: Later
):
    def first(ctx):
        each = refusing(ctx, 1, after=lambda item: f"{item}h")
        results = ctx.step.map(
            "each",
            each,
            [1, 2, 3],
            completion=durable.First(),
            return_exceptions=True,
        )
        assert isinstance(results[2], BranchCancelled)
        assert isinstance(results[2], durable.BranchCancelled)
        return told(results)

    expected = [["StepFailed", "Refused", "not 1"], 20, "BranchCancelled"]
    assert later(start(first), "4h").result() == expected
