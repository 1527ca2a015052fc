"""Examples of docs/how-to/models.md."""

from __future__ import annotations

from durable_jobs.models import Run
from project.shop.models import Order
from tests.docs.examples import an_order, section


@section("Start functions on changes of models")
def test_start_functions_on_changes_of_models(run_example, shop, kit):
    run_example()
    order = an_order()
    kit.run_until_idle()
    order.note = "fragile"
    order.save()
    order.status = "paid"
    order.save()
    kit.run_until_idle()
    first, second = Run.objects.order_by("pk")
    assert first.result() == f"thank you for order {order.pk}"
    assert second.result() == "new -> paid"
    assert second.data["model"] == "shop.Order"
    assert second.data["pk"] == order.pk
    assert second.trigger == "durable/model.updated"
    shop.order = order


@section("Filter changes")
def test_narrow_it(run_example, kit):
    run_example()
    an_order(total=999).delete()
    an_order(total=1000, status="paid").delete()
    kit.run_until_idle()
    assert [run.function for run in Run.objects.order_by("pk")] == [
        "shop.look_closely",
        "shop.pay_back",
    ]


@section("Include fields for keys")
def test_carry_fields_for_keys(run_example, kit):
    run_example()
    order = an_order(note="to be indexed")
    order.note = "changed alone"
    order.save()
    kit.run_until_idle()
    results = [run.result() for run in Run.objects.filter(function="shop.index_order")]
    assert results == [f"{order.tenant_id}: {order.status}"] * 2


@section("Detected writes")
def test_what_is_seen_and_what_is_not(run_example, shop, kit):
    run_example()
    tenant = an_order().tenant
    Run.objects.all().delete()
    shop.import_orders(
        [
            Order(tenant=tenant, total=1, status="paid"),
            Order(tenant=tenant, total=2, status="paid"),
        ]
    )
    Order.objects.filter(total=2).update(note="nobody sees this")
    assert shop.ship_all() == 2
    shop.close(list(Order.objects.filter(status="shipped")))
    kit.run_until_idle()
    results = [run.result() for run in Run.objects.order_by("pk")]
    assert sorted(map(str, results)) == sorted(
        ["[None, 'paid']"] * 2
        + ["['paid', 'shipped']"] * 2
        + ["['shipped', 'cancelled']"] * 2
    )


@section("Cost")
def test_what_it_costs(run_example, kit):
    run_example()
    an_order()
    kit.run_until_idle()
    assert Run.objects.count() == 1
