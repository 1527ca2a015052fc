"""Examples of docs/how-to/steps.md."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from durable_jobs import durable
from durable_jobs.models import Event, Run, Step
from tests.docs.examples import an_order, section


@section("Write steps and retries")
def test_write_steps_and_retries(run_example, shop, kit):
    run_example()
    run = shop.fulfil_order.enqueue({"order_id": 7})
    kit.advance("3d")
    run.refresh_from_db()
    assert run.result() == {"reservation": "reservation-7", "charge": "charge-7"}
    assert [step.name for step in Step.objects.order_by("position")] == [
        "reserve",
        "cool-off",
        "charge",
    ]


@section("Types of results")
def test_what_a_result_may_be(run_example, shop):
    run_example()
    assert shop.price.enqueue(
        {"order_id": an_order(total=20).pk}
    ).wait().result() == Decimal(40)


@section("Retries")
def test_retries(run_example, shop, kit):
    run_example()
    run = shop.patient.enqueue()
    kit.advance("1m")
    assert len(shop.attempts) == 2
    kit.advance("1m")
    run.refresh_from_db()
    assert run.result() == "done"
    run_example()
    run = shop.charge_politely.enqueue()
    kit.advance("59m")
    assert len(shop.calls) == 1
    kit.advance("1m")
    run.refresh_from_db()
    assert run.result() == "NonRetriableError: this card was stolen"


@section("Exactly once for the database")
def test_exactly_once_for_the_database(run_example, shop, kit):
    run_example()
    order = an_order(total=40)
    kit.crash_at("shipping", when="body")
    run = shop.with_shipping.enqueue({"order_id": order.pk})
    kit.run_until_idle()
    kit.advance("61s")
    order.refresh_from_db()
    assert order.total == 45
    run_example()
    kit.crash_at("pay", when="body")
    run = shop.pay_once.enqueue()
    kit.run_until_idle()
    kit.advance("61s")
    run.refresh_from_db()
    assert run.result() == "payment of 40"
    assert len(shop.sent) == 1
    run_example()
    kit.crash_at("launch", when="body")
    run = shop.launch_once.enqueue()
    kit.run_until_idle()
    kit.advance("61s")
    run.refresh_from_db()
    assert run.result() == "unknown"


@section("Time limits")
def test_time_limits(run_example, shop):
    run_example()
    assert shop.impatient.enqueue().wait().result() == "too slow"
    shop.never.set()


@section("Sleep")
def test_sleep(run_example, shop, kit):
    run_example()
    opens_at = kit.now() + timedelta(days=100)
    run = shop.slow_motion.enqueue({"opens_at": opens_at})
    kit.advance("3d")
    run.refresh_from_db()
    assert run.status == "waiting"
    kit.travel_to(opens_at)
    run.refresh_from_db()
    assert run.status == "completed"


@section("Other runs and events")
def test_other_runs_and_events(run_example, shop, kit):
    run_example()
    run = shop.settle.enqueue()
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 40
    assert Event.objects.get(name="shop/settled").data == {"amount": 40}
    assert Run.objects.get(function="shop.tidy").status == "completed"

    @durable.function(id="shop.slow_child")
    def slow_child(ctx):
        ctx.step.sleep("nap", "3h")

    @durable.function
    def hasty(ctx):
        try:
            ctx.step.invoke("child", slow_child, timeout="1h")
        except durable.InvokeTimeout:
            ctx.step.sleep("more", "1h")
            return "too slow"

    run = hasty.enqueue()
    kit.advance("1h")
    child = Run.objects.get(function="shop.slow_child")
    assert child.status == "waiting"
    kit.advance("1h")
    run.refresh_from_db()
    child.refresh_from_db()
    assert run.result() == "too slow"
    assert child.status == "cancelled"


@section("Group steps")
def test_group_steps(run_example, shop):
    run_example()
    assert shop.two_parcels.enqueue().wait().result() == ["FIRST", "SECOND"]
    group = Step.objects.get(kind="group", name="first")
    assert group.children.get().name == "print label"


@section("Functions that are steps")
def test_functions_that_are_steps(run_example, shop):
    run_example()
    assert shop.load_prices("any") == {"any tea": 4}
    run = shop.cheapest.enqueue().wait()
    assert run.result() == 4
    assert Step.objects.get().name == "load_prices"


@section("Async functions")
def test_async_functions(run_example, shop, kit):
    run_example()
    run = shop.compare.enqueue()
    kit.advance("10s")
    run.refresh_from_db()
    assert run.result() == 1.1


@section("Queues")
def test_queues(run_example, shop):
    run_example()
    run = shop.report.enqueue()
    assert run.queue == "reports"
    assert run.wait().result() == "Annual Report"


@section("Log")
def test_log(run_example, shop, kit, caplog):
    run_example()
    with caplog.at_level("INFO", "durable_jobs.run"):
        run = shop.talkative.enqueue()
        kit.advance("1s")
    assert [(record.message, vars(record)["run_id"]) for record in caplog.records] == [
        (f"[run {run.pk}] said once", str(run.pk)),
        (f"[run {run.pk}] said once too", str(run.pk)),
    ]
