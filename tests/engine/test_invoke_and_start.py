"""``ctx.step.invoke`` and ``start``: runs that start others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


@pytest.fixture
def child(durable_kit: Kit) -> durable.Function:
    """Return a function that behaves as its data says."""

    @durable.function(id="tests.child", retries=0)
    def child(ctx):
        data = ctx.event.data
        if "sleep" in data:
            ctx.step.sleep("nap", data["sleep"])
        if "fail" in data:
            raise Refused(data["fail"])
        return {"got": data, "by": ctx.event.name}

    made: durable.Function = child
    return made


def invoking(child: Any, data: Any = None, **options: Any) -> tuple[Any, list[Any]]:
    """Return a function that invokes another, and the list of what it saw."""
    seen: list[Any] = []

    def parent(ctx):
        try:
            seen.append(ctx.step.invoke("call", child, data, **options))
        except durable.DurableError as error:
            told = (type(error).__name__, getattr(error, "error_type", ""), str(error))
            seen.append(told)
        ctx.step.sleep("nap", "1d")
        return seen[-1]

    return parent, seen


def same(seen: list[Any]) -> Any:
    """Return what the function saw; fail if the values differ."""
    assert len(seen) >= 2
    assert seen == [seen[0]] * len(seen)
    return seen[0]


# Invoke


def test_invoke_returns_the_result_of_the_child(start: Start, later: Later, child):
    parent, seen = invoking(child, {"a": (1, 2)})
    run = later(start(parent), "1d")

    assert same(seen) == {"got": {"a": (1, 2)}, "by": "durable/function.called"}
    made = Run.objects.get(function="tests.child")
    assert made.parent_id == run.pk
    assert made.status == "completed"


def test_parent_occupies_no_worker_while_the_child_works(
    start: Start, later: Later, child
):
    parent, _ = invoking(child, {"sleep": "1h"})
    run = start(parent)

    assert (run.status, run.lease_token) == ("waiting", None)
    assert run.steps.get().status == "invoking"
    assert later(run, "1h").steps.get(name="call").status == "completed"


def test_child_may_be_named_by_its_id(start: Start, later: Later, child):
    parent, seen = invoking("tests.child")
    later(start(parent), "1d")

    assert same(seen)["got"] == {}


def test_unknown_function_is_an_error_that_names_it(start: Start, later: Later):
    parent, seen = invoking("tests.nobody")
    later(start(parent), "1d")

    kind, _, message = same(seen)
    assert kind == "UnknownFunction"
    assert "'tests.nobody'" in message


def test_child_that_fails_fails_the_step(start: Start, later: Later, child):
    parent, seen = invoking(child, {"fail": "out of stock"})
    later(start(parent), "1d")

    kind, error_type, message = same(seen)
    assert (kind, error_type) == ("InvokeFailed", "Refused")
    assert "tests.child" in message
    assert "out of stock" in message


def test_child_that_is_cancelled_fails_the_step(start: Start, later: Later, child):
    parent, seen = invoking(child, {"sleep": "1h"})
    run = start(parent)
    Run.objects.get(function="tests.child").cancel(reason="not needed")
    later(run, "1d")

    kind, error_type, message = same(seen)
    assert (kind, error_type) == ("InvokeFailed", "RunCancelled")
    assert "not needed" in message


def test_child_that_takes_too_long_is_a_timeout(start: Start, later: Later, child):
    parent, seen = invoking(child, {"sleep": "2h"}, timeout="1h")
    run = later(start(parent), "1h")
    assert run.steps.get(name="call").status == "failed"
    assert not Wait.objects.filter(run=run, kind="child").exists()

    run = later(run, "1d")
    kind, error_type, _ = same(seen)
    assert kind == error_type == "InvokeTimeout"
    assert run.status == "completed"


def test_child_that_ends_in_time_leaves_no_timeout(start: Start, later: Later, child):
    parent, seen = invoking(child, {"sleep": "30m"}, timeout="1h")
    run = later(start(parent), "30m")

    assert not Wait.objects.filter(run=run, kind="timeout").exists()
    later(run, "1d")
    assert same(seen)["got"] == {"sleep": "30m"}


def test_child_is_cancelled_with_its_parent(start: Start, child):
    parent, _ = invoking(child, {"sleep": "1h"})
    run = start(parent)
    assert run.cancel(reason="stop")

    made = Run.objects.get(function="tests.child")
    assert made.status == "cancelled"
    assert "parent" in made.reason


def test_child_is_cancelled_when_its_parent_fails(start: Start, later: Later, child):
    def parent(ctx):
        def failing():
            raise Refused("no")

        ctx.step.parallel(
            "both",
            [
                lambda: ctx.step.invoke("call", child, {"sleep": "1h"}),
                lambda: ctx.step.run("fail", failing, retries=0),
            ],
        )

    run = later(start(parent))

    assert run.status == "failed"
    children = Run.objects.filter(function="tests.child")
    assert {made.status for made in children} <= {"cancelled"}


def nested(depth: int) -> durable.Function:
    """Declare a chain of functions that invoke one another, and return the first."""
    below = nested(depth - 1) if depth else None

    def level(ctx):
        if below is None:
            ctx.step.sleep("nap", "1h")
            if ctx.event.data.get("fail"):
                raise Refused("at the bottom")
            return ["bottom"]
        return [depth, *ctx.step.invoke("down", below, ctx.event.data)]

    made: durable.Function = durable.function(id=f"tests.level{depth}", retries=0)(
        level
    )
    return made


def test_result_passes_through_three_levels(
    start: Start, later: Later, durable_kit: Kit
):
    run = start(nested(3))
    assert Run.objects.filter(status="waiting").count() == 4

    assert later(run, "1h").result() == [3, 2, 1, "bottom"]


def test_error_passes_through_three_levels(
    start: Start, later: Later, durable_kit: Kit
):
    run = later(start(nested(3), {"fail": True}), "1h")

    assert run.error["type"] == "Refused"
    assert "at the bottom" in run.error["message"]
    assert set(Run.objects.values_list("status", flat=True)) == {"failed"}


def test_cancellation_of_the_first_passes_through_three_levels(
    start: Start, durable_kit: Kit
):
    run = start(nested(3))
    run.cancel()

    assert set(Run.objects.values_list("status", flat=True)) == {"cancelled"}


def test_child_of_many_parents_at_once(start: Start, later: Later, child):
    def parent(ctx):
        return ctx.step.map(
            "all",
            lambda n: ctx.step.invoke("call", child, {"sleep": n + 1})["got"]["sleep"],
            range(5),
        )

    assert later(start(parent), "1m").result() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("when", ["before", "body"])
def test_worker_death_at_an_invoke_starts_one_child(
    start: Start, later: Later, durable_kit: Kit, child, when
):
    parent, seen = invoking(child)
    durable_kit.crash_at("call", when=when)
    run = start(parent)
    assert not Run.objects.filter(function="tests.child").exists()
    later(run, "2d")

    assert same(seen)["got"] == {}
    assert Run.objects.filter(function="tests.child").count() == 1


# Start


def test_start_returns_the_id_and_continues(start: Start, later: Later, child):
    seen = []

    def parent(ctx):
        seen.append(ctx.step.start("start", child, {"sleep": "1h"}))
        ctx.step.sleep("nap", 1)
        return seen[-1]

    run = later(start(parent), 1)

    made = Run.objects.get(function="tests.child")
    assert run.result() == str(made.pk)
    assert seen == [str(made.pk)] * len(seen)
    assert made.status == "waiting", "the child continues without its parent"
    assert later(made, "1h").result()["got"] == {"sleep": "1h"}


def test_started_run_is_not_cancelled_with_its_parent(
    start: Start, later: Later, child
):
    def parent(ctx):
        ctx.step.start("start", child, {"sleep": "1h"})
        ctx.step.sleep("nap", "1d")

    run = start(parent)
    run.cancel()

    made = Run.objects.get(function="tests.child")
    assert later(made, "1h").status == "completed"


@pytest.mark.parametrize("when", ["before", "body", "after"])
def test_worker_death_at_a_start_starts_one_run(
    start: Start, later: Later, durable_kit: Kit, child, when
):
    def parent(ctx):
        return ctx.step.start("start", child)

    durable_kit.crash_at("start", when=when)
    run = start(parent)
    assert Run.objects.filter(function="tests.child").count() == (when == "after")
    run = later(run, "61s")

    assert run.result() == str(Run.objects.get(function="tests.child").pk)


def test_start_takes_the_options_of_using(
    start: Start, later: Later, child, durable_kit: Kit
):
    def parent(ctx):
        ctx.step.start("start", child.using(run_after="1h"))

    start(parent)
    made = Run.objects.get(function="tests.child")

    assert made.due_at == durable_kit.now() + timedelta(hours=1)
    assert made.status == "queued"
    assert later(made, "1h").status == "completed"


@pytest.mark.parametrize("kind", ["invoke", "start"])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (["no", "dict"], "PayloadError"),
        ({"x": object()}, "PayloadError"),
        ({"x": "\x00"}, "PayloadError"),
        ({"x": "y" * 600_000}, "PayloadError"),
    ],
    ids=["no dict", "an object", "NUL", "too large"],
)
def test_invalid_data_is_refused_and_starts_nothing(
    start: Start, child, kind, data, error
):
    def parent(ctx):
        getattr(ctx.step, kind)("call", child, data)

    run = start(parent)

    assert run.error["type"] == error
    assert "'call'" in run.error["message"]
    assert not Run.objects.filter(function="tests.child").exists()


@pytest.mark.parametrize("kind", ["invoke", "start"])
def test_invoke_refuses_an_object_that_is_no_function(start: Start, kind):
    def parent(ctx):
        getattr(ctx.step, kind)("call", lambda ctx: 1)

    run = start(parent)

    assert run.error["type"] == "ConfigurationError"
    assert "function" in run.error["message"]
