"""Examples of docs/how-to/flow-control/idempotency.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, shop, kit):
    run_example()

    def received(payment):
        durable.send("shop/payment.received", {"payment": payment})
        kit.run_until_idle()
        return Run.objects.count()

    assert [received(7), received(7), received(8)] == [1, 1, 2]
    assert [received(None), received(None)] == [3, 4]
    run = shop.book_payment.enqueue({"payment": 7})
    assert run.pk == Run.objects.earliest("pk").pk
    kit.advance("24h")
    assert received(7) == 5
