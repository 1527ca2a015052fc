"""Examples of docs/how-to/flow-control/concurrency.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, shop, kit):
    run_example()
    for _ in range(5):
        durable.send("shop/video.uploaded", {"tenant": "acme"})
    kit.run_until_idle()
    assert {run.output for run in Run.objects.all()} <= {1, 2}
    for tenant in range(8):
        durable.send("shop/video.uploaded", {"tenant": tenant})
    kit.run_until_idle()
    assert max(run.output for run in Run.objects.all()) > 2
    run_example()
    for function in (
        shop.fetch_prices,
        shop.fetch_stock,
        shop.fetch_prices,
        shop.fetch_stock,
    ):
        function.enqueue()
    kit.run_until_idle()
    assert Run.objects.filter(status="waiting").count() == 3
    assert Run.objects.filter(status="queued").count() == 1
    kit.advance("1h")
    kit.advance("1h")
    assert not Run.objects.live().exists()
