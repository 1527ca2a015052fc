"""Examples of docs/how-to/functions.md."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from durable_jobs import durable
from durable_jobs.models import Event, Run
from tests.docs.examples import an_order, section


@section("Declare functions and start runs")
def test_declare_functions_and_start_runs(run_example, shop):
    run_example()
    run = shop.pay_order.enqueue({"order_id": 7}).wait()
    assert run.function == "shop.pay_order"
    assert run.result() == "charge-7"
    assert shop.pay_order.name == "Pay order"
    assert shop.pay_order.description == "Charge the card of an order."


@section("Start it by an event")
def test_start_it_by_an_event(run_example, shop, kit):
    run_example()
    shop.place_order(7)
    kit.run_until_idle()
    run = Run.objects.get(function="shop.fulfil_order")
    assert run.result() == 7
    assert run.trigger == "shop/order.placed"
    run_example()
    durable.send("shop/order.placed", {"order_id": 1, "total": 100})
    durable.send("shop/order.placed", {"order_id": 1, "total": 101})
    durable.send("shop/refund.asked", {"total": 500})
    durable.send("shop/refund.asked", {"total": 5})
    durable.send("shop/refund.asked", {})
    kit.run_until_idle()
    assert (
        Run.objects.filter(function="shop.tell_the_boss", status="completed").count()
        == 2
    )
    (skipped,) = Run.objects.filter(function="shop.tell_the_boss", status="skipped")
    assert "condition" in skipped.reason


@section("Check the data of an event")
def test_check_the_data_of_an_event(run_example, shop, kit):
    run_example()
    durable.send("shop/order.placed", {"order_id": 7, "total": 40})
    durable.send("shop/order.placed", shop.OrderPlaced(order_id=8))
    kit.run_until_idle()
    assert sorted(run.result() for run in Run.objects.all()) == [0, 40]
    with pytest.raises(durable.PayloadError, match="order_id"):
        durable.send("shop/order.placed", {"total": 40})
    assert Event.objects.count() == 2
    run_example()
    run = shop.print_two(7)
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 2
    with pytest.raises(durable.PayloadError, match="order_id"):
        shop.print_label.enqueue({"copies": 2})


@section("Start it from code")
def test_start_it_from_code(run_example, shop, kit):
    run_example()
    assert Run.objects.get(pk=shop.invoice(7)).status == "queued"
    shop.invoice_later(8)
    shop.invoice_later(8)
    assert Run.objects.count() == 2
    kit.run_until_idle()
    assert Run.objects.get(key="invoice-8").status == "queued"
    kit.advance("1h")
    assert Run.objects.get(key="invoice-8").result() == "invoice for 8"
    with pytest.raises(durable.DuplicateKeyError):
        shop.send_invoice.using(key="invoice-8").enqueue({"order_id": 9})


@section("Start work inside a transaction")
def test_start_work_inside_a_transaction(run_example, shop, kit):
    run_example()
    order = shop.place(an_order().tenant, 12)
    kit.run_until_idle()
    assert Run.objects.get().result() == order.pk
    with transaction.atomic():
        shop.place(order.tenant, 13)
        transaction.set_rollback(True)
    kit.run_until_idle()
    assert Run.objects.count() == 1
    shop.order = order


@section("Send an event once, or later")
def test_send_an_event_once_or_later(run_example, shop, kit):
    run_example()
    shop.paid(7, "evt_1")
    shop.paid(7, "evt_1")
    kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 1
    shop.paid_at(8, kit.now() + timedelta(hours=2))
    kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 1
    kit.advance("2h")
    assert Run.objects.filter(status="completed").count() == 2


@section("Wait for the result")
def test_wait_for_the_result(run_example, shop):
    run_example()
    assert shop.total([1, 2, 3]) == 6


@section("From async code")
def test_from_async_code(run_example, shop, kit):
    run_example()
    async_to_sync(shop.a_view)(None)
    kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 2


@section("React to the end of a run")
def test_react_to_the_end_of_a_run(run_example, shop, kit):
    run_example()
    run = shop.deliver.enqueue({"order_id": 7}).wait()
    assert run.status == "failed"
    kit.run_until_idle()
    handler = Run.objects.get(function="shop.deliver:on_failure")
    assert handler.result() == "order 7: no courier"
    assert set(handler.data) == {
        "run_id",
        "function",
        "status",
        "output",
        "error",
        "reason",
        "event",
    }


@section("End a run early")
def test_end_a_run_early(run_example, kit):
    run_example()
    for order_id in (1, 2):
        durable.send("shop/order.placed", {"order_id": order_id})
    kit.run_until_idle()
    durable.send("shop/order.cancelled", {"order_id": 1})
    kit.run_until_idle()
    first, second = Run.objects.order_by("pk")
    assert (first.status, second.status) == ("cancelled", "waiting")
    assert "shop/order.cancelled" in first.reason
    kit.advance("7d")
    second.refresh_from_db()
    assert second.status == "cancelled"
    assert "timeouts.finish" in second.reason
