"""Examples of docs/how-to/waiting.md."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run, Step
from project.shop.models import Order
from tests.docs.examples import an_order, section


@section("An event")
def test_an_event(run_example, kit):
    run_example()
    for order_id in (1, 2):
        durable.send("shop/order.placed", {"order_id": order_id})
    kit.run_until_idle()
    durable.send("shop/order.reviewed", {"order_id": 2, "text": "fine"})
    kit.run_until_idle()
    kit.advance("7d")
    assert [run.result() for run in Run.objects.order_by("pk")] == ["no review", "fine"]
    run_example()
    Run.objects.all()._raw_delete("default")
    durable.send("shop/order.placed", {"order_id": 3})
    kit.advance("1m")
    durable.send("shop/order.paid", {"order_id": 3})
    kit.advance("1h")
    assert (
        Run.objects.get(function="shop.pack").result() == "order 3 is packed and paid"
    )


@section("A signal")
def test_a_signal(run_example, shop, kit):
    run_example()
    run = shop.publish.enqueue({"post": 1})
    assert not shop.decide(1, True)
    kit.run_until_idle()
    second = shop.publish.enqueue({"post": 1}).wait()
    assert second.error["type"] == "SignalTaken"
    assert shop.decide(1, True)
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "published"


@section("A model instance")
def test_a_model_instance(run_example, shop, kit):
    run_example()
    order = an_order()
    run = shop.after_payment.enqueue({"order_id": order.pk})
    kit.run_until_idle()
    order.status = "paid"
    order.save()
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == f"order {order.pk} is paid"
    other = an_order()
    run = shop.after_payment.enqueue({"order_id": other.pk})
    kit.run_until_idle()
    Order.objects.filter(pk=other.pk).update(status="paid")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "waiting"
    kit.advance("5s")
    run.refresh_from_db()
    assert run.result() == f"order {other.pk} is paid"
    shop.order = order


@section("A callback")
def test_an_answer_from_outside(run_example, shop, kit):
    run_example()
    run = shop.render.enqueue()
    kit.run_until_idle()
    kit.advance("9m")
    shop.on_progress()
    kit.advance("9m")
    shop.on_done("film.mp4")
    with pytest.raises(durable.CallbackClosed):
        shop.on_done("film.mp4")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "film.mp4"
    run = shop.render.enqueue()
    kit.run_until_idle()
    shop.on_error("out of disk")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "RenderError: out of disk"
    run = shop.render.enqueue()
    kit.run_until_idle()
    kit.advance("10m")
    run.refresh_from_db()
    assert run.result() == "no answer"


@section("A condition")
def test_a_condition(run_example, shop, kit):
    run_example()
    run = shop.wait_until_ready.enqueue()
    kit.advance("2m")
    run.refresh_from_db()
    assert run.result() == "ready after 3 looks"
    assert Step.objects.count() == 1
    shop.ready_after = -1
    run = shop.wait_until_ready.enqueue()
    kit.advance("2h")
    run.refresh_from_db()
    assert run.error["type"] == "ConditionTimeout"


@section("The first of several")
def test_the_first_of_several(run_example, shop, kit):
    run_example()
    order = an_order()
    run = shop.follow_up.enqueue({"order_id": order.pk})
    kit.run_until_idle()
    durable.signal(f"stop-{order.pk}", "enough")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "stop: enough"
    run = shop.follow_up.enqueue({"order_id": order.pk})
    kit.advance("14d")
    run.refresh_from_db()
    assert run.result() == "nothing"
    shop.order = order
