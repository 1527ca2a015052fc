"""Examples of docs/how-to/admin.md."""

from __future__ import annotations

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.template import Context, Template
from django.test import RequestFactory

from durable_jobs import durable
from durable_jobs.control import admin_actions
from durable_jobs.control.actor import Actor
from project.shop.models import Order
from tests.docs.examples import an_order, section


@section("The runs of an object")
def test_the_runs_of_an_object(run_example, shop, kit):
    known = dict(admin.site._registry)
    admin.site.unregister(Order)
    run_example()
    request = RequestFactory().get("/")
    request.user = User(is_superuser=True, is_active=True)
    made = shop.OrderAdmin(Order, admin.site)
    assert made.get_list_display(request) == ("__str__", "status", "durable_runs")
    admin.site._registry.clear()
    admin.site._registry.update(known)
    run_example()
    order = an_order()
    durable.send("shop/payment.received", {"order_id": order.pk})
    kit.run_until_idle()
    assert durable.runs_for(order).get().result() == f"booked for order {order.pk}"


@section("Start a function from the admin")
def test_offer_a_function(run_example, shop, kit):
    run_example()
    ann = User.objects.create_superuser("ann")
    order = an_order()
    payload = {"amount": "5", "reason": "late"}
    (run,) = admin_actions.start(Actor(ann), shop.refund, [order], payload, token="t")
    assert (
        admin_actions.start(Actor(ann), shop.refund, [order], payload, token="t") == []
    )
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == f"5 back for order {order.pk}: late"
    shop.order = order
    run_example()
    shop.refund_late(order)
    kit.run_until_idle()
    assert (
        durable.runs_for(order).first().result() == f"5 back for order {order.pk}: late"
    )
    with pytest.raises(durable.PayloadError, match="amount"):
        shop.refund.enqueue({"model": "shop.Order", "pk": order.pk, "reason": "late"})


@section("Progress for your users")
def test_progress_for_your_users(kit, story):
    @durable.function
    def ship(ctx: durable.Context) -> None:
        ctx.step.run("pack", print, "packed")
        ctx.step.sleep("drive", "1h")

    run = ship.enqueue()
    kit.run_until_idle()
    page = Template("{% load durable_jobs %}{% durable_progress run total=2 %}")
    shown = page.render(Context({"run": run}))
    assert "1 of 2 steps done" in shown
    assert "drive" in shown
    assert "hx-get" in shown
