"""User code gets its own copy: the engine continues with the stored value."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.serialization import private_copy
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start
from tests.engine.test_values import VALUES

both = pytest.mark.parametrize("kind", ["def", "async def"])


def spoil(value: Any) -> None:
    """Change everything that can be changed in a value."""
    if isinstance(value, dict):
        for one in value.values():
            spoil(one)
        value.clear()
        value["spoiled"] = True
    elif isinstance(value, list):
        for one in value:
            spoil(one)
        value[:] = ["spoiled"]


def function(kind: str, before: Any, after: Any) -> Any:
    """Return a function that calls ``before``, waits for a reply, calls ``after``."""

    def waiting(ctx):
        before(ctx)
        reply = ctx.step.wait_for_event("w", "app/reply", match="data.email")
        return after(ctx, reply)

    async def awaiting(ctx):
        before(ctx)
        reply = await ctx.step.wait_for_event("w", "app/reply", match="data.email")
        return after(ctx, reply)

    return waiting if kind == "def" else awaiting


@both
@pytest.mark.parametrize("what", ["event", "run", "event of the run"])
def test_data_that_a_function_changes_is_matched_as_stored(
    start: Start, later: Later, durable_kit: Kit, what, kind
):
    seen: list[Any] = []

    def before(ctx):
        data = ctx.run.data if what == "run" else ctx.event.data
        seen.append({**data, "tags": list(data["tags"])})
        spoil(data)
        if what == "event of the run":
            ctx.run.data = {"email": "B@X"}
            ctx.run.event_meta["name"] = "other"
            ctx.run.queue = "elsewhere"

    run = start(
        function(kind, before, lambda ctx, reply: reply.data["n"]),
        {"email": "A@X", "tags": ["a", "b"]},
    )
    durable_kit.send("app/reply", {"email": "A@X", "n": 7})
    run = later(run)

    assert run.result() == 7
    assert run.data == {"email": "A@X", "tags": ["a", "b"]}
    assert seen == [{"email": "A@X", "tags": ["a", "b"]}] * len(seen)
    assert len(seen) >= 2


@both
def test_condition_changes_only_its_own_copy(
    start: Start, later: Later, durable_kit: Kit, kind
):
    def spoiling(event: Any, came: Any) -> bool:
        spoil(event.data)
        spoil(came.data)
        return True

    def waiting(ctx):
        found = ctx.step.wait_for_event("w", "app/reply", if_=spoiling)
        return [found.data, ctx.event.data]

    async def awaiting(ctx):
        found = await ctx.step.wait_for_event("w", "app/reply", if_=spoiling)
        return [found.data, ctx.event.data]

    run = start(waiting if kind == "def" else awaiting, {"email": "A@X"})
    durable_kit.send("app/reply", {"n": [7]})
    assert later(run).result() == [{"n": [7]}, {"email": "A@X"}]


def test_trigger_changes_only_its_own_copy(later: Later, durable_kit: Kit):
    seen: list[Any] = []

    def spoiling(event: Any) -> bool:
        seen.append(private_copy(event.data))
        spoil(event.data)
        return True

    def key(event: Any) -> str:
        seen.append(private_copy(event.data))
        spoil(event.data)
        return "key"

    for name in ("first", "second"):
        durable.function(
            id=f"tests.{name}",
            on=durable.Event("app/came", if_=spoiling),
            concurrency=durable.Concurrency(1, key=key),
            singleton=durable.Singleton(key=key),
        )(lambda ctx: ctx.event.data)

    durable_kit.send("app/came", {"n": [1]})
    durable_kit.run_until_idle()

    assert [run.output for run in Run.objects.all()] == [{"n": [1]}] * 2
    assert seen == [{"n": [1]}] * len(seen)
    assert len(seen) >= 6


@both
def test_change_of_one_result_does_not_show_in_another(
    start: Start, later: Later, kind
):
    seen: list[Any] = []

    def look(*results: Any) -> None:
        seen.append(private_copy(list(results)))
        for one in results:
            spoil(one)

    def taking(ctx):
        one = ctx.step.run("one", lambda: {"n": [1]})
        two = ctx.step.atomic("two", lambda: {"n": [2]})
        three = ctx.step.parallel("three", {"a": lambda: {"n": [3]}})
        look(one, two, three)
        ctx.step.sleep("nap", 1)
        return "done"

    async def awaiting(ctx):
        one = await ctx.step.run("one", lambda: {"n": [1]})
        two = await ctx.step.atomic("two", lambda: {"n": [2]})

        async def branch():
            return {"n": [3]}

        three = await ctx.step.parallel("three", {"a": branch})
        look(one, two, three)
        await ctx.step.sleep("nap", 1)
        return "done"

    run = later(start(taking if kind == "def" else awaiting), 1)

    assert run.result() == "done"
    assert seen == [[{"n": [1]}, {"n": [2]}, {"a": {"n": [3]}}]] * len(seen)
    assert len(seen) >= 2


@both
def test_change_by_a_failing_condition_is_undone(start: Start, later: Later, kind):
    seen: list[Any] = []

    def check(state: Any) -> Any:
        seen.append(private_copy(state))
        state["tries"].append(1)
        if len(seen) < 3:
            raise ValueError("not yet")
        return durable.Done(state)

    options: dict[str, Any] = {"initial": {"tries": []}, "every": "1s", "timeout": "1h"}

    def asking(ctx):
        return ctx.step.wait_for_condition("ask", check, **options)

    async def awaiting(ctx):
        return await ctx.step.wait_for_condition("ask", check, **options)

    run = later(start(asking if kind == "def" else awaiting), "10m")

    assert run.result() == {"tries": [1]}
    assert seen == [{"tries": []}] * 3


@both
def test_handler_gets_the_event_as_stored(start: Start, later: Later, kind):
    seen: list[Any] = []

    @durable.function(id="tests.after")
    def after(ctx):
        seen.append(ctx.event.data["event"]["data"])

    def failing(ctx):
        spoil(ctx.event.data)
        raise durable.NonRetriableError("no")

    async def afailing(ctx):
        failing(ctx)

    body = failing if kind == "def" else afailing
    run = start(body, {"email": ["A@X"]}, on_failure=after)
    later(run)

    assert seen
    assert seen == [{"email": ["A@X"]}] * len(seen)


def test_copy_is_equal_and_shares_nothing_mutable():
    for value in VALUES.values():
        copied = private_copy(value)
        assert copied == value
        assert type(copied) is type(value)
    nested = {"a": [{"b": ({"c"}, [1])}]}
    copied = private_copy(nested)
    copied["a"][0]["b"][0].add("d")
    copied["a"][0]["b"][1].append(2)
    copied["a"].append(3)
    assert nested == {"a": [{"b": ({"c"}, [1])}]}
