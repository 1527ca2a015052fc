"""Examples of README.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import an_order, section


@section("Why")
def test_why(run_example, kit):
    run_example()
    order = an_order()
    durable.send("shop/order.placed", {"order_id": order.pk})
    kit.run_until_idle()
    order.refresh_from_db()
    assert (order.status, order.note) == ("paid", f"charge-{order.pk}")
    kit.advance("3d")
    durable.send("shop/order.reviewed", {"order_id": order.pk})
    kit.run_until_idle()
    assert Run.objects.get().result() is True
