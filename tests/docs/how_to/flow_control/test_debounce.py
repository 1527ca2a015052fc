"""Examples of docs/how-to/flow-control/debounce.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, kit):
    run_example()

    def edited(title):
        durable.send("shop/product.edited", {"product": 7, "title": title})
        kit.run_until_idle()

    for title in ("T", "Te", "Tea"):
        edited(title)
        kit.advance("4s")
    assert not Run.objects.exists()
    kit.advance("6s")
    assert Run.objects.get().result() == "Tea"
    for number in range(4):
        edited(f"Tea {number}")
        kit.advance("7500ms")
    assert Run.objects.latest("pk").result() == "Tea 3"
    assert Run.objects.count() == 2
    run_example()
    for item in ("tea", "milk", "cups"):
        durable.send("shop/cart.changed", {"cart": 1, "item": item})
    kit.advance("1m")
    assert Run.objects.get(function="shop.summarise").result() == [
        "tea",
        "milk",
        "cups",
    ]
