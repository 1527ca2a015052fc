"""The runs that were started for a model instance."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant


@pytest.fixture
def order(durable_kit: Kit) -> Order:
    """Return an order of a tenant."""
    tenant = Tenant.objects.create(name="Ada")
    return Order.objects.create(tenant=tenant, total=5)


def test_instances_in_the_data_are_subjects(durable_kit: Kit, order: Order) -> None:
    look = durable.function(id="look", on=durable.Event("a/b"))(lambda ctx: None)
    called = look.enqueue({"order": order, "tenant": order.tenant, "n": 1})
    durable_kit.send("a/b", {"order": order})
    sent = Run.objects.exclude(pk=called.pk).get()
    look.enqueue({"order_id": order.pk})

    # The newest first.
    assert list(durable.runs_for(order)) == [sent, called]
    assert list(durable.runs_for(order.tenant)) == [called]
    subjects = called.subjects.order_by("model").values_list("model", "object_pk")
    assert list(subjects) == [
        ("shop.order", str(order.pk)),
        ("shop.tenant", str(order.tenant.pk)),
    ]


def test_instances_inside_a_pydantic_model_are_no_riddle(
    durable_kit: Kit, order: Order
) -> None:
    other = Order.objects.create(tenant=order.tenant, total=6)
    look = durable.function(id="look")(lambda ctx: None)
    look.enqueue({"order": order, "again": order})
    assert durable.runs_for(order).count() == 1
    assert durable.runs_for(other).count() == 0


def test_run_of_a_model_change_is_for_its_instance(
    durable_kit: Kit, order: Order
) -> None:
    trigger = durable.ModelChange("shop.Order", updated=True)
    durable.function(id="watch", on=trigger)(lambda ctx: ctx.instance.pk)
    order.note = "urgent"
    order.save()
    durable_kit.run_until_idle()
    assert durable.runs_for(order).get().result() == order.pk


def test_child_has_its_own_subjects(durable_kit: Kit, order: Order) -> None:
    child = durable.function(id="child")(lambda ctx: None)

    @durable.function(id="parent")
    def parent(ctx):
        ctx.step.invoke("call", child, {"order": order})
        ctx.step.start("go", child, {"order": order})

    parent.enqueue({"tenant": order.tenant})
    durable_kit.run_until_idle()
    functions = [run.function for run in durable.runs_for(order)]
    assert functions == ["child", "child"]
    assert durable.runs_for(order.tenant).get().function == "parent"


def test_rerun_is_for_the_same_instances(durable_kit: Kit, order: Order) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    run = look.enqueue({"order": order}).wait(timeout=10)
    again = run.rerun()
    assert list(durable.runs_for(order)) == [again, run]


def test_deleted_instance_still_has_its_runs(durable_kit: Kit, order: Order) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    run = look.enqueue({"order": order})
    key = order.pk
    Order.objects.all().delete()
    order.pk = key
    assert durable.runs_for(order).get() == run


def test_runs_are_a_queryset(durable_kit: Kit, order: Order) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    for _ in range(3):
        look.enqueue({"order": order})
    assert durable.runs_for(order).filter(status="queued").cancel("enough") == 3
