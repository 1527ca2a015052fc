"""Examples of docs/how-to/flow-control/priority.md."""

from __future__ import annotations

from durable_jobs import durable
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, shop, kit):
    run_example()
    for name, plan in (("A", "free"), ("B", "free"), ("C", "free"), ("D", "paid")):
        durable.send("shop/export.wanted", {"name": name, "plan": plan})
    kit.run_until_idle()
    assert shop.done == ["D", "A", "B", "C"]
    shop.export.using(priority=-600).enqueue({"name": "E", "plan": "paid"})
    shop.export.enqueue({"name": "F", "plan": "free"})
    kit.run_until_idle()
    assert shop.done[4:] == ["F", "E"]
