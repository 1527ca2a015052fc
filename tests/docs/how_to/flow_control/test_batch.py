"""Examples of docs/how-to/flow-control/batch.md."""

from __future__ import annotations

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Declare it")
def test_declare_it(run_example, kit):
    run_example()

    def viewed(*pages):
        for page in pages:
            durable.send("shop/page.viewed", {"page": page, "tenant": 1})
        kit.run_until_idle()

    viewed("a", "b", "c", "d")
    assert Run.objects.get().result() == ["a", "b", "c", "d"]
    viewed("e")
    kit.advance("3s")
    viewed("f")
    kit.advance("6s")
    assert Run.objects.count() == 1
    kit.advance("1s")
    assert Run.objects.latest("pk").result() == ["e", "f"]


@section("Partial failure")
def test_some_of_them_fail(run_example, shop, kit):
    run_example()
    for name in ("a", "b", "c"):
        durable.send("shop/document.changed", {"name": name}, id=name)
    kit.run_until_idle()
    first = Run.objects.earliest("pk")
    assert (first.status, first.output) == ("completed", {"failed": ["b"]})
    again = Run.objects.latest("pk")
    assert (again.status, again.parent_relation, again.parent_id) == (
        "queued",
        "batch",
        first.pk,
    )
    kit.advance("30s")
    kit.advance("30s")
    assert Run.objects.count() == 4
    dead = Run.objects.latest("pk")
    assert (dead.status, dead.error["type"]) == ("failed", "BatchFailed")
    shop.refused.clear()
    assert Run.objects.filter(status="failed").redrive() == 1
    kit.run_until_idle()
    dead.refresh_from_db()
    assert dead.status == "completed"


@section("Failure of the whole batch")
def test_the_whole_batch_fails(run_example, kit):
    run_example()
    for amount in ("1", "2", "three", "4"):
        durable.send("shop/row.arrived", {"amount": amount})
    kit.run_until_idle()
    assert sorted(run.output for run in Run.objects.filter(status="completed")) == [
        3,
        4,
    ]
    failed = Run.objects.filter(status="failed")
    assert [run.data["amount"] for run in failed if not run.reason] == ["three"]
    assert failed.exclude(reason="").count() == 2
