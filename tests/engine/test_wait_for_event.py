"""``ctx.step.wait_for_event``: the first event that matches, or None on timeout."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Wait
from durable_jobs.testing import Kit
from tests.engine.conftest import Later, Start


def test_wait_returns_the_event(start: Start, later: Later, durable_kit: Kit):
    seen = []

    def waiting(ctx):
        event = ctx.step.wait_for_event("wait", "shop/reviewed")
        seen.append((type(event), event.id, event.name, event.data, event.ts))
        ctx.step.sleep("nap", 1)
        return event.data["stars"]

    run = start(waiting)
    assert run.status == "waiting"
    assert run.lease_token is None, "a worker is still busy"

    durable_kit.send("shop/other", {"stars": 1})
    sent = durable_kit.send("shop/reviewed", {"stars": 5})
    run = later(run, 1)

    assert run.result() == 5
    assert len(seen) >= 2
    expected = (
        durable.ReceivedEvent,
        sent,
        "shop/reviewed",
        {"stars": 5},
        durable_kit.now() - timedelta(seconds=1),
    )
    assert seen == [expected] * len(seen)


def test_event_from_before_the_wait_is_not_taken(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        return ctx.step.wait_for_event("wait", "shop/reviewed", timeout="1h")

    durable_kit.send("shop/reviewed")
    run = start(waiting)

    assert run.status == "waiting"
    assert later(run, "1h").result() is None


def test_timeout_returns_none(start: Start, later: Later, durable_kit: Kit):
    def waiting(ctx):
        first = ctx.step.wait_for_event("wait", "shop/reviewed", timeout="1h")
        ctx.step.sleep("nap", "1h")
        return [first]

    run = start(waiting)
    assert later(run, "59m").status == "waiting"
    run = later(run, "1m")
    assert run.steps.get(name="wait").status == "timed_out"
    assert not Wait.objects.filter(kind="event").exists()

    durable_kit.send("shop/reviewed")
    assert later(run, "1h").result() == [None]


def test_event_and_timeout_at_the_same_instant_have_one_winner(
    start: Start, later: Later, durable_kit: Kit
):
    seen = []

    def waiting(ctx):
        event = ctx.step.wait_for_event("wait", "shop/reviewed", timeout="1h")
        seen.append(None if event is None else event.data)
        ctx.step.sleep("nap", "1h")

    run = start(waiting)
    durable_kit.advance("1h", run=False)
    durable_kit.send("shop/reviewed", {"stars": 5})
    run = later(run, "1h")

    assert run.status == "completed"
    assert len(seen) >= 2
    assert seen == [seen[0]] * len(seen)
    assert not Wait.objects.exists()


def test_match_asks_for_the_value_of_the_runs_own_event(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        event = ctx.step.wait_for_event("wait", "shop/paid", match="data.order.id")
        return event.data["n"]

    mine = start(waiting, {"order": {"id": 7}})
    for number, order in enumerate([{"id": 8}, {"id": "7"}, {}, 7, {"id": 7}]):
        durable_kit.send("shop/paid", {"order": order, "n": number})

    assert later(mine).result() == 4


def test_event_resumes_all_the_runs_that_it_matches(
    start: Start, later: Later, durable_kit: Kit
):
    @durable.function(id="tests.matching")
    def matching(ctx):
        event = ctx.step.wait_for_event("wait", "shop/paid", match="data.order_id")
        return event.data["n"]

    runs = [start(matching, {"order_id": number % 2}) for number in range(4)]
    durable_kit.send("shop/paid", {"order_id": 1, "n": "one"})
    assert [later(run).status for run in runs] == ["waiting", "completed"] * 2

    durable_kit.send("shop/paid", {"order_id": 0, "n": "zero"})
    assert [later(run).result() for run in runs] == ["zero", "one"] * 2


def test_condition_in_cel_sees_both_events(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        condition = "async.data.total > event.data.total && async.name == 'shop/bid'"
        return ctx.step.wait_for_event("wait", "shop/bid", if_=condition).data["total"]

    run = start(waiting, {"total": 10})
    for total in [9, 10, None, "many", 11, 12]:
        durable_kit.send("shop/bid", {"total": total})

    assert later(run).result() == 11


def test_condition_may_be_a_callable(start: Start, later: Later, durable_kit: Kit):
    def waiting(ctx):
        smallest = ctx.step.run("smallest", lambda: 10)
        event = ctx.step.wait_for_event(
            "wait", "shop/bid", if_=lambda event, new: new.data["total"] > smallest
        )
        return event.data["total"]

    run = start(waiting)
    for total in [9, 10]:
        durable_kit.send("shop/bid", {"total": total})
    assert later(run).status == "waiting"

    for total in [11, 12]:
        durable_kit.send("shop/bid", {"total": total})
    assert later(run).result() == 11


def test_wait_needs_both_match_and_condition(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        event = ctx.step.wait_for_event(
            "wait", "shop/bid", match="data.lot", if_="async.data.total >= 10"
        )
        return event.data

    run = start(waiting, {"lot": 1})
    for lot, total in [(1, 9), (2, 10), (1, 10)]:
        durable_kit.send("shop/bid", {"lot": lot, "total": total})

    assert later(run).result() == {"lot": 1, "total": 10}


def test_failing_callable_condition_is_no_match_and_is_logged(
    start: Start, later: Later, durable_kit: Kit, caplog
):
    def waiting(ctx):
        event = ctx.step.wait_for_event(
            "wait", "shop/bid", if_=lambda event, new: 1 / new.data["total"]
        )
        return event.data["total"]

    run = start(waiting)
    durable_kit.send("shop/bid", {"total": 0})
    assert later(run).status == "waiting"
    assert str(run.pk) in caplog.text

    durable_kit.send("shop/bid", {"total": 4})
    assert later(run).result() == 4


def test_delayed_event_matches_when_it_is_due(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        return ctx.step.wait_for_event("wait", "shop/reviewed").data

    run = start(waiting)
    moment = durable_kit.now() + timedelta(hours=1)
    durable_kit.send("shop/reviewed", {"stars": 5}, ts=moment)

    assert later(run, "59m").status == "waiting"
    assert later(run, "1m").result() == {"stars": 5}


# Since the run began


@pytest.mark.parametrize("condition", ["none", "cel", "callable"])
def test_wait_since_the_run_takes_an_earlier_event(
    start: Start, later: Later, durable_kit: Kit, condition
):
    conditions = {
        "none": None,
        "cel": "async.data.n > 1",
        "callable": lambda event, new: new.data["n"] > 1,
    }

    def waiting(ctx):
        ctx.step.sleep("first something else", "1h")
        event = ctx.step.wait_for_event(
            "wait",
            "shop/paid",
            match="data.order_id",
            if_=conditions[condition],
            since="run",
            timeout="1d",
        )
        return event.data["n"]

    durable_kit.send("shop/paid", {"order_id": 7, "n": 50})
    durable_kit.advance(1)
    run = start(waiting, {"order_id": 7})
    durable_kit.advance("10m")
    durable_kit.send("shop/paid", {"order_id": 8, "n": 40})
    durable_kit.send("shop/paid", {"order_id": 7, "n": 2})
    durable_kit.advance("10m")
    durable_kit.send("shop/paid", {"order_id": 7, "n": 3})

    assert later(run, "1h").result() == 2


def test_wait_since_the_run_takes_a_later_event_too(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        return ctx.step.wait_for_event("wait", "shop/paid", since="run").data

    run = start(waiting)
    assert run.status == "waiting"
    durable_kit.send("shop/paid", {"n": 1})

    assert later(run).result() == {"n": 1}


def test_consecutive_waits_since_the_run_take_one_event_each(
    start: Start, later: Later, durable_kit: Kit
):
    def waiting(ctx):
        ctx.step.sleep("first something else", "1h")
        taken: list[int] = []
        while len(taken) < 4:
            event = ctx.step.wait_for_event("wait", "shop/paid", since="run")
            taken.append(event.data["n"])
        return taken

    run = start(waiting)
    for number in [1, 2]:
        durable_kit.advance("1m")
        durable_kit.send("shop/paid", {"n": number})
    run = later(run, "1h")
    assert run.status == "waiting"
    durable_kit.send("shop/paid", {"n": 3})
    durable_kit.send("shop/paid", {"n": 4})

    run = later(run)
    assert (run.status, run.output) == ("completed", [1, 2, 3, 4])


def test_wait_since_the_run_ignores_the_triggering_event(
    durable_kit: Kit, suspending: bool
):
    @durable.function(id="tests.own", on=durable.Event("shop/paid"))
    def own(ctx):
        if ctx.event.data["n"] == 1:
            event = ctx.step.wait_for_event("wait", "shop/paid", since="run")
            return event.data["n"]
        return "another run"

    durable_kit.send("shop/paid", {"n": 1})
    durable_kit.run_until_idle()
    durable_kit.advance(1)
    durable_kit.send("shop/paid", {"n": 2})
    durable_kit.run_until_idle()

    outputs = [run.result() for run in Run.objects.order_by("pk")]
    assert outputs == [2, "another run"]


# Invalid calls


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"event": ""}, "event name"),
        ({"event": "shop/*"}, "wildcard"),
        ({"match": "order_id"}, "data.order_id"),
        ({"if_": "async.data.total >"}, "if_"),
        ({"if_": "unknown.name == 1"}, "if_"),
        ({"timeout": "-1h"}, "timeout"),
        ({"timeout": "367d"}, "366 days"),
        ({"since": "always"}, "'run'"),
    ],
    ids=str,
)
def test_wrong_wait_is_refused(start: Start, options, expected):
    def waiting(ctx):
        ctx.step.wait_for_event("wait", **{"event": "shop/paid", **options})

    run = start(waiting)

    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]
    assert not run.steps.exists()
