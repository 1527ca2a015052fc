"""Handlers, cancel_on and timeouts that the ending process does not know."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.definitions.registry import registry
from durable_jobs.lifecycle import finish
from durable_jobs.maintenance import doctor, missing_functions
from durable_jobs.models import Run, SweepError
from durable_jobs.store import left_work
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def every_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check for unfinished work in each tick, not once a minute."""
    monkeypatch.setattr(missing_functions, "RESUME_INTERVAL", 0.0)


def deployed(calls: list[Any], **options: Any) -> durable.Function:
    """Declare the function with its handlers, as new code does."""

    def handler(ctx):
        calls.append((ctx.event.data["status"], ctx.event.data["reason"]))

    @durable.function(id="shop.order", on_cancel=handler, on_failure=handler, **options)
    def order(ctx):
        ctx.step.run("one", lambda: 1)
        ctx.step.sleep("long", "30d")

    return order


def begun(calls: list[Any], **options: Any) -> tuple[Run, Any]:
    """Start a run in a process with the new code; return it, and the time."""
    with Kit() as new:
        run = deployed(calls, **options).enqueue({"order": 7})
        new.run_until_idle()
        return run, new.now()


def ended_by_new_code(calls: list[Any], now: Any, **options: Any) -> None:
    with Kit(now=now) as new:
        deployed(calls, **options)
        new.advance("1m")
        new.advance("1m")


def test_on_cancel_starts_for_a_run_cancelled_in_a_process_without_it() -> None:
    calls: list[Any] = []
    run, now = begun(calls)
    with Kit(now=now) as old:
        assert run.cancel("not needed")
        old.advance("10m")
        run.refresh_from_db()
        assert (run.status, Run.objects.count()) == ("cancelled", 1)
        now = old.now()
    ended_by_new_code(calls, now)
    assert calls == [("cancelled", "not needed")]
    assert Run.objects.filter(parent=run, parent_relation="handler").count() == 1
    assert not SweepError.objects.exists()


@pytest.mark.parametrize("limit", ["start", "finish"])
def test_timeout_ends_the_run_and_its_handler_is_started_by_new_code(
    limit: str,
) -> None:
    calls: list[Any] = []
    options = {"timeouts": durable.Timeouts(**{limit: "1h"})}
    with Kit() as new:
        run = deployed(calls, **options).enqueue()
        if limit == "finish":
            new.run_until_idle()
        now = new.now()
    with Kit(now=now) as old:
        old.advance("2h")
        run.refresh_from_db()
        assert run.status == "cancelled"
        assert f"timeouts.{limit}" in run.reason
        now = old.now()
    ended_by_new_code(calls, now, **options)
    assert calls == [("cancelled", run.reason)]


RULES = [
    durable.CancelOn("order/cancelled", match="data.order"),
    durable.CancelOn("order/cancelled", if_="event.data.order == async.data.order"),
    durable.CancelOn("order/cancelled", if_=lambda event, new: new.data["order"] == 7),
]


@pytest.mark.parametrize("rule", RULES, ids=["match", "cel", "callable"])
def test_event_cancels_a_run_whose_function_the_router_lacks(rule: Any) -> None:
    calls: list[Any] = []
    options = {"cancel_on": rule}
    run, now = begun(calls, **options)
    with Kit(now=now) as old:
        old.send("order/cancelled", {"order": 8})
        old.send("order/cancelled", {"order": 7})
        old.advance("10m")
        run.refresh_from_db()
        assert run.status == "waiting"
        now = old.now()
    ended_by_new_code(calls, now, **options)
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert [status for status, _ in calls] == ["cancelled"]
    assert not SweepError.objects.exists()


def test_rule_that_the_code_of_the_router_lacks_is_left_too() -> None:
    calls: list[Any] = []
    rules = [durable.CancelOn("order/lost"), durable.CancelOn("order/cancelled")]
    run, now = begun(calls, cancel_on=rules)
    with Kit(now=now) as old:
        deployed(calls, cancel_on=rules[0])
        old.send("order/cancelled", {})
        old.advance("10m")
        run.refresh_from_db()
        assert run.status == "waiting"
        now = old.now()
    ended_by_new_code(calls, now, cancel_on=rules)
    run.refresh_from_db()
    assert run.status == "cancelled"


def test_handler_of_a_child_that_its_parent_ends_is_started() -> None:
    calls: list[Any] = []

    def deploy_parent() -> durable.Function:
        @durable.function(id="shop.parent")
        def parent(ctx):
            ctx.step.invoke("call", "shop.order")

        return parent

    with Kit() as new:
        deployed(calls)
        run = deploy_parent().enqueue()
        new.run_until_idle()
        now = new.now()
    with Kit(now=now) as old:
        deploy_parent()
        assert run.cancel("all of it")
        now = old.now()
    assert Run.objects.get(function="shop.order").status == "cancelled"
    ended_by_new_code(calls, now)
    assert calls == [("cancelled", "Its parent run is cancelled.")]


def test_unfinished_work_is_done_once_by_two_processes() -> None:
    calls: list[Any] = []
    run, now = begun(calls)
    with Kit(now=now):
        run.cancel("x")
    with Kit(now=now) as new:
        deployed(calls)
        pairs = left_work.handlers(registry.ids(), 10)
        assert len(pairs) == 1
        for _ in range(2):
            finish.start_left_handler(*pairs[0])
        new.run_until_idle()
    assert len(calls) == 1


def test_function_without_handlers_leaves_no_unfinished_work() -> None:
    with Kit() as new:

        def deploy() -> durable.Function:
            return durable.function(id="shop.bare")(lambda ctx: 1)

        run = deploy().enqueue()
        now = new.now()
    with Kit(now=now) as old:
        run.cancel("x")
        # It is no error, and the doctor reports nothing.
        assert SweepError.objects.count() == 1
        assert "failing-item" not in {one.check for one in doctor.examine().findings}
        old.advance("3d")
        assert SweepError.objects.count() == 1
        now = old.now()
    with Kit(now=now) as new:
        deploy()
        new.advance("1m")
    assert not SweepError.objects.exists()
    assert Run.objects.count() == 1


def test_unfinished_work_of_a_redriven_run_is_forgotten() -> None:
    calls: list[Any] = []
    run, now = begun(calls)
    with Kit(now=now):
        run.cancel("x")
    with Kit(now=now) as new:
        deployed(calls)
        run.refresh_from_db()
        assert run.redrive()
        new.advance("3d")
        assert calls == []
        assert not SweepError.objects.filter(kind=left_work.HANDLER).exists()
