"""Examples of docs/how-to/control.md."""

from __future__ import annotations

from datetime import UTC, datetime

from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run, Step
from tests.docs.examples import an_order, section


@section("Control runs from code")
def test_control_runs_from_code(run_example, shop, kit):
    run_example()
    run = shop.long_order.enqueue()
    kit.run_until_idle()
    run.refresh_from_db()
    assert shop.stop(run)
    assert not shop.stop(run)
    assert (run.status, run.reason) == ("cancelled", "the buyer called")
    shop.run = run


@section("Cancel, pause and resume")
def test_cancel_pause_and_resume(run_example, shop, kit):
    run_example()
    run = shop.two_things.enqueue()
    kit.run_until_idle()
    shop.hold(run)
    assert (run.status, run.reason) == ("paused", "stocktaking")
    kit.advance("2h")
    run.refresh_from_db()
    assert run.status == "paused"
    shop.let_go(run)
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == ["FIRST", "SECOND"]
    shop.run = run


@section("Rerun and redrive")
def test_run_again_rerun_and_redrive(run_example, shop, kit):
    run_example()
    run = shop.print_label.enqueue({"address": "main street"}).wait()
    assert run.status == "failed"
    shop.working = True
    shop.mend(run)
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "MAIN STREET printed"
    other = shop.again_elsewhere(run)
    kit.run_until_idle()
    other.refresh_from_db()
    assert other.result() == "MAIN STREET printed"
    assert other.pk != run.pk
    shop.run = run


@section("Many at once")
def test_many_at_once(run_example, shop, kit):
    run_example()
    kit.travel_to(datetime(2030, 11, 5, tzinfo=UTC))
    shop.nightly.enqueue().wait()
    shop.nightly.enqueue()
    shop.clean_up()
    assert Run.objects.filter(status="cancelled").count() == 1
    kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 2
    assert len(shop.replay_november()) == 2
    kit.run_until_idle()


@section("Runs of an instance")
def test_which_runs_are_of_this_order(run_example, shop, kit):
    run_example()
    order = an_order()
    shop.packed(order)
    kit.run_until_idle()
    assert shop.history(order) == ["completed"]
    assert Run.objects.get().result() == f"label for order {order.pk}"
    shop.order = order


@section("Change code with runs in flight")
def test_change_code_with_runs_in_flight(run_example, shop, kit):
    run_example()
    old = shop.bill.enqueue()
    kit.run_until_idle()
    registry._functions.clear()
    registry._index()
    run_example()
    new = shop.bill.enqueue()
    kit.run_until_idle()
    kit.advance("1d")
    for run in (old, new):
        run.refresh_from_db()
        assert run.result() == "invoice"
    checked = Step.objects.filter(name="check tax")
    assert [step.run_id for step in checked] == [new.pk]


@section("Mismatches of code and history")
def test_when_code_and_history_do_not_fit(run_example, shop, kit):
    run_example()
    run = shop.moved.enqueue()
    kit.run_until_idle()
    function = registry._functions.pop("shop.moved")
    kit.advance("1h")
    run.refresh_from_db()
    assert run.status == "queued"
    registry.add(function)
    kit.advance("1m")
    run.refresh_from_db()
    assert run.status == "completed"
