"""Examples of docs/how-to/flow-control/ordering.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, shop, kit):
    run_example()
    for entry in ("a", "b", "c"):
        durable.send("shop/entry.made", {"account": 7, "entry": entry})
    kit.run_until_idle()
    assert shop.booked == []
    first, second, _ = Run.objects.order_by("pk")
    assert (second.status, second.explain().holders) == ("queued", [str(first.pk)])
    shop.down = False
    kit.advance("1m")
    assert shop.booked == ["a", "b", "c"]
    shop.entry = entry


@section("At the limit")
def test_at_the_limit(run_example, shop, kit):
    run_example()
    durable.send("shop/change.made", {"account": 7, "good": False})
    kit.run_until_idle()
    durable.send("shop/change.made", {"account": 7, "good": True})
    durable.send("shop/change.made", {"account": 8, "good": True})
    kit.run_until_idle()
    runs = Run.objects.filter(function="shop.apply_change").order_by("pk")
    assert [run.status for run in runs] == ["failed", "queued", "completed"]
    shop.apply_change.resume(key=7)
    kit.run_until_idle()
    assert [run.status for run in runs.all()] == ["failed", "completed", "completed"]
