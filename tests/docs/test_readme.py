"""Examples of README.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from project.shop.models import Order
from tests.docs.examples import an_order, section


@section("durable_jobs")
def test_an_order_is_charged_booked_and_reviewed(run_example, shop, kit):
    def mark_paid(order_id, charge):
        Order.objects.filter(pk=order_id).update(status="paid", note=charge)

    shop.charge_card = lambda order_id: f"charge-{order_id}"
    shop.mark_paid = mark_paid
    run_example()
    order = an_order()
    durable.send("shop/order.placed", {"order_id": order.pk})
    kit.run_until_idle()
    order.refresh_from_db()
    assert (order.status, order.note) == ("paid", f"charge-{order.pk}")
    kit.advance("3d")
    durable.send("shop/order.reviewed", {"order_id": order.pk})
    kit.run_until_idle()
    assert Run.objects.get().result() == "reviewed"
