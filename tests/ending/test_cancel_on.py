"""Events that cancel live runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from durable_jobs import durable
from durable_jobs.models import Run, Wait
from durable_jobs.testing import Kit


class Ordered(BaseModel):
    """The data of an order."""

    id: int


class Stopped(BaseModel):
    """The data of a stop event."""

    order: Ordered


def nap(ctx):
    """Sleep long."""
    ctx.step.sleep("long", "30d")
    return "rested"


def statuses() -> list[str]:
    """Return the statuses of all runs, the oldest first."""
    return list(Run.objects.order_by("pk").values_list("status", flat=True))


def declared(*rules: durable.CancelOn, **parameters: Any) -> durable.Function:
    """Declare ``nap`` with rules that cancel it."""
    made: durable.Function = durable.function(
        id="nap", on=durable.Event("shop/order"), cancel_on=rules, **parameters
    )(nap)
    return made


def test_event_cancels_every_live_run(durable_kit: Kit) -> None:
    function = declared(durable.CancelOn("shop/stop"))
    function.enqueue()
    durable_kit.run_until_idle()
    function.enqueue()
    event_id = durable_kit.send("shop/stop")
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "cancelled"]
    for run in Run.objects.all():
        assert "shop/stop" in run.reason
        assert event_id in run.reason
    assert not Wait.objects.exists()
    assert Run.objects.order_by("pk")[1].started_at is None


def test_match_asks_for_the_same_value(durable_kit: Kit) -> None:
    function = declared(durable.CancelOn("shop/stop", match="data.order_id"))
    for order_id in (7, 8, "7", None):
        function.enqueue({"order_id": order_id})
    durable_kit.run_until_idle()
    durable_kit.send("shop/stop", {"order_id": 7})
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "waiting", "waiting", "waiting"]
    durable_kit.send("shop/stop", {"order_id": 9})
    durable_kit.send("shop/go", {"order_id": 8})
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "waiting", "waiting", "waiting"]


def test_match_reaches_into_nested_data(durable_kit: Kit) -> None:
    function = declared(durable.CancelOn("shop/stop", match="data.order.id"))
    function.enqueue({"order": {"id": 7}})
    function.enqueue({"order": {"id": 8}})
    durable_kit.run_until_idle()
    durable_kit.send("shop/stop", {"order": {"id": 8, "why": "x"}})
    durable_kit.run_until_idle()
    assert statuses() == ["waiting", "cancelled"]


@pytest.mark.parametrize(
    "condition",
    [
        "async.data.amount > event.data.limit",
        lambda event, other: other.data["amount"] > event.data["limit"],
    ],
    ids=["CEL", "callable"],
)
def test_condition_sees_both_events(durable_kit: Kit, condition: str) -> None:
    function = declared(durable.CancelOn("shop/stop", if_=condition))
    function.enqueue({"limit": 10})
    function.enqueue({"limit": 100})
    durable_kit.run_until_idle()
    durable_kit.send("shop/stop", {"amount": 50})
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "waiting"]


def test_cancel_on_needs_both_match_and_condition(durable_kit: Kit) -> None:
    rule = durable.CancelOn(
        "shop/stop", match="data.order_id", if_="async.data.sure == true"
    )
    function = declared(rule)
    for order_id in (7, 8):
        function.enqueue({"order_id": order_id})
    durable_kit.run_until_idle()
    durable_kit.send("shop/stop", {"order_id": 7, "sure": False})
    durable_kit.send("shop/stop", {"order_id": 8, "sure": True})
    durable_kit.run_until_idle()
    assert statuses() == ["waiting", "cancelled"]


def test_match_reaches_into_pydantic_models(durable_kit: Kit) -> None:
    function = declared(durable.CancelOn("shop/stop", match="data.order.id"))
    function.enqueue({"order": Ordered(id=7)})
    function.enqueue({"order": {"id": 8}})
    durable_kit.run_until_idle()
    durable_kit.send("shop/stop", {"order": {"id": 7}})
    durable_kit.send("shop/stop", Stopped(order=Ordered(id=8)))
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "cancelled"]


def test_timeout_of_cancel_on_ignores_later_events(durable_kit: Kit) -> None:
    function = declared(durable.CancelOn("shop/stop", timeout="1h"))
    function.enqueue()
    durable_kit.advance("30m")
    function.enqueue()
    durable_kit.advance("31m")
    durable_kit.send("shop/stop")
    durable_kit.run_until_idle()
    assert statuses() == ["waiting", "cancelled"]


def test_cancel_on_cancels_by_any_of_five_rules(durable_kit: Kit) -> None:
    function = declared(
        *(durable.CancelOn(f"shop/stop.{n}", match="data.id") for n in range(5))
    )
    for number in range(5):
        function.enqueue({"id": number})
    durable_kit.run_until_idle()
    for number in (0, 4):
        durable_kit.send(f"shop/stop.{number}", {"id": number})
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "waiting", "waiting", "waiting", "cancelled"]


@pytest.mark.parametrize("id", [None, "order-7"])
def test_triggering_event_does_not_cancel_its_own_run(
    durable_kit: Kit, id: str | None
) -> None:
    declared(durable.CancelOn("shop/order", match="data.order_id"))
    durable_kit.send("shop/order", {"order_id": 7}, id=id)
    durable_kit.run_until_idle()
    assert statuses() == ["waiting"]
    # The next sweep replaces it.
    durable_kit.advance("1s")
    durable_kit.send("shop/order", {"order_id": 7})
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "waiting"]


@pytest.mark.parametrize("pause", ["0s", "1ms"])
def test_event_before_the_run_does_not_cancel_it(durable_kit: Kit, pause: str) -> None:
    function = declared(durable.CancelOn("shop/stop"))
    durable_kit.send("shop/stop")
    durable_kit.advance(pause, run=False)
    function.enqueue()
    durable_kit.run_until_idle()
    assert statuses() == ["waiting"]


def test_paused_runs_and_runs_in_the_queue_are_live(durable_kit: Kit) -> None:
    function = declared(durable.CancelOn("shop/stop"))
    paused = function.enqueue()
    durable_kit.run_until_idle()
    assert paused.pause() is True
    function.using(run_after="1d").enqueue()
    durable_kit.send("shop/stop")
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "cancelled"]


def test_ended_runs_are_not_cancelled(durable_kit: Kit) -> None:
    done = durable.function(id="done", cancel_on=durable.CancelOn("shop/stop"))(
        lambda ctx: 1
    )
    run = done.enqueue().wait(timeout=10)
    assert not Wait.objects.exists()
    durable_kit.send("shop/stop")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "completed"


def test_failing_condition_cancels_nothing(durable_kit: Kit) -> None:
    def broken(event, other):
        return other.data["missing"]

    function = declared(durable.CancelOn("shop/stop", if_=broken))
    function.enqueue()
    durable_kit.run_until_idle()
    durable_kit.send("shop/stop")
    durable_kit.run_until_idle()
    assert statuses() == ["waiting"]


def test_redriven_run_can_be_cancelled_again(durable_kit: Kit) -> None:
    function = declared(durable.CancelOn("shop/stop", match="data.order_id"))
    run = function.enqueue({"order_id": 7})
    durable_kit.run_until_idle()
    for _ in range(2):
        durable_kit.advance("1m")
        durable_kit.send("shop/stop", {"order_id": 7})
        durable_kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "cancelled"
        assert run.redrive() is True
        durable_kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "waiting"


def test_event_resumes_and_cancels_different_runs(durable_kit: Kit) -> None:
    @durable.function(id="wait")
    def wait(ctx):
        return ctx.step.wait_for_event("stop", "shop/stop").data["n"]

    declared(durable.CancelOn("shop/stop")).enqueue()
    wait.enqueue()
    durable_kit.run_until_idle()
    durable_kit.send("shop/stop", {"n": 1})
    durable_kit.run_until_idle()
    assert statuses() == ["cancelled", "completed"]


def test_cancellation_records_reason_and_time(durable_kit: Kit) -> None:
    run = declared(durable.CancelOn("shop/stop")).enqueue()
    durable_kit.advance("1h")
    durable_kit.send("shop/stop")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.ended_at == run.queued_at + timedelta(hours=1)
    with pytest.raises(durable.RunCancelled, match="shop/stop"):
        run.result()
