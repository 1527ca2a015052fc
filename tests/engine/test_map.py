"""``ctx.step.map``: one function over many items, and tolerated failures."""

from __future__ import annotations

from durable_jobs import durable
from tests.engine.conftest import Later, Start
from tests.engine.failures import Refused


def test_results_have_the_order_of_the_items(start: Start):
    def doubling(ctx):
        return ctx.step.map("double", lambda item: item * 2, [3, 1, 2])

    assert start(doubling).result() == [6, 2, 4]


def test_items_of_any_kind_reach_the_function(start: Start):
    def kinds(ctx):
        items = (item for item in [None, {"a": 1}, ("x", 2), "text"])
        return ctx.step.map("each", lambda item: [item], items)

    assert start(kinds).result() == [[None], [{"a": 1}], [("x", 2)], ["text"]]


def test_map_without_items_returns_no_results(start: Start):
    def empty(ctx):
        return [
            ctx.step.map("all", print, []),
            ctx.step.map("some", print, [], completion=durable.Tolerate(percent=50)),
            ctx.step.map("any", print, [], return_exceptions=True),
        ]

    assert start(empty).result() == [[], [], []]


def test_200_items(start: Start, later: Later):
    calls = []

    def many(ctx):
        def each(item):
            ctx.step.sleep("nap", "1h")
            return ctx.step.run("work", lambda: calls.append(item) or item)

        return ctx.step.map("each", each, range(200), max_concurrency=100)

    assert later(start(many), "2h").result() == list(range(200))
    assert sorted(calls) == list(range(200))


def test_record_shows_a_map_and_its_items(start: Start):
    def doubling(ctx):
        ctx.step.map("double", lambda item: item * 2, [3, 1])

    run = start(doubling)
    step = run.steps.get(name="double")
    assert (step.kind, step.status) == ("map", "completed")
    items = step.children.order_by("position")
    assert [(item.name, item.output) for item in items] == [("0", 6), ("1", 2)]


# Again


def test_redriven_map_retries_only_its_failed_items(start: Start, later: Later):
    calls: list[int] = []
    mended: list[bool] = []

    def check(item):
        calls.append(item)
        if item == 2 and not mended:
            raise Refused(f"not {item}")
        return item * 10

    def mapping(ctx):
        def each(item):
            ctx.step.sleep("nap", f"{item}h")
            return ctx.step.run("check", check, item, retries=0)

        return ctx.step.map("each", each, [1, 2, 3])

    run = later(start(mapping), "1d")
    assert run.status == "failed"
    assert calls == [1, 2]

    mended.append(True)
    assert run.redrive()
    run = later(run)
    assert calls == [1, 2, 2]
    assert later(run, "1d").result() == [10, 20, 30]
    assert calls == [1, 2, 2, 3]


def test_run_that_failed_by_one_item_can_be_redriven(start: Start, later: Later):
    calls: list[int] = []
    mended: list[bool] = []

    def check(item):
        calls.append(item)
        if item == 2 and not mended:
            raise Refused(f"not {item}")
        return item

    def mapping(ctx):
        try:
            return ctx.step.map("each", check, [1, 2])
        except durable.ParallelError as error:
            raise error.results[1] from None

    run = start(mapping, retries=0)
    assert run.error["type"] == "Refused"
    mended.append(True)
    run.redrive()

    assert later(run).result() == [1, 2]
    assert calls == [1, 2, 2]


def test_rerun_from_a_step_in_a_branch_executes_the_branches_again(
    start: Start, later: Later
):
    calls: list[str] = []

    def mapping(ctx):
        def nap():
            ctx.step.sleep("nap", "1h")
            return "rested"

        def work():
            ctx.step.run("first", calls.append, "first")
            ctx.step.run("second", calls.append, "second")
            return ctx.step.wait_for_signal("wait", "go")

        return ctx.step.parallel("p", {"nap": nap, "work": work})

    run = start(mapping)
    run.cancel()
    again = run.rerun(from_step="second")
    later(run)
    durable.signal("go", "gone")

    assert later(again, "1h").result() == {"nap": "rested", "work": "gone"}
    assert calls == ["first", "second", "second"]
