"""Examples of docs/explanation/security.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.maintenance import doctor
from durable_jobs.models import Event, Run, Step
from tests.docs.examples import an_order, section


@section("Erase the data of a person")
def test_erase_deletes_runs_children_and_events(run_example, shop, kit):
    run_example()

    @durable.function(id="docs.child")
    def child(ctx: durable.Context) -> None:
        ctx.step.sleep("pause", "1h")

    @durable.function(id="docs.parent", on=durable.Event("docs/asked"))
    def parent(ctx: durable.Context) -> None:
        ctx.step.invoke("child", child)

    mine, other = an_order(), an_order()
    for order in (mine, other):
        kit.send("docs/asked", {"order": order})
    kit.run_until_idle()
    assert Run.objects.live().count() == 4
    assert shop.erase(mine) == 2
    assert not durable.runs_for(mine).exists()
    assert Run.objects.live().count() == 2
    assert Event.objects.count() == 1
    assert set(Step.objects.values_list("run_id", flat=True)) <= set(
        Run.objects.values_list("pk", flat=True)
    )
    found = [one.check for one in doctor.examine(deep=True).findings if one.problem]
    assert set(found) <= {"tick", "unserved-queue"}, found
