"""Examples of docs/how-to/flow-control/throttle.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, kit):
    run_example()
    for number in range(5):
        durable.send("shop/order.placed", {"tenant": "acme", "order": number})
    kit.run_until_idle()
    done = Run.objects.filter(status="completed")
    assert [run.output for run in done.order_by("started_at", "pk")] == [0, 1]
    kit.advance("9s")
    assert done.count() == 2
    last = Run.objects.latest("pk")
    assert (last.explain().state, last.explain().ahead) == ("throttled", 2)
    kit.advance("1s")
    assert done.count() == 3
    kit.advance("20s")
    assert done.count() == 5
