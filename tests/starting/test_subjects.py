"""The runs that were started for a model instance."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.lifecycle import run_subjects
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


# subject=

ORDER = durable.Subject("shop.Order", "event.data.order_id")


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """Give the warnings about subjects of this test."""
    monkeypatch.setattr(run_subjects, "_warned", set())
    caplog.set_level(logging.WARNING, "durable_jobs")
    return lambda: [one.getMessage() for one in caplog.records]


def test_declared_subject_is_linked_however_the_run_starts(
    durable_kit: Kit, order: Order
) -> None:
    trigger = durable.Event("a/b")
    look = durable.function(id="look", on=trigger, subject=ORDER)(lambda ctx: None)
    called = look.enqueue({"order_id": order.pk})
    text = look.enqueue({"order_id": str(order.pk)})
    number = look.enqueue({"order_id": float(order.pk)})
    durable_kit.send("a/b", {"order_id": order.pk})
    look.enqueue({"order_id": order.pk + 1})
    assert durable.runs_for(order).count() == 4
    assert {called, text, number} < set(durable.runs_for(order))


def test_declared_subject_costs_no_more_than_an_instance(
    durable_kit: Kit, order: Order
) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    declared = durable.function(id="declared", subject=ORDER)(lambda ctx: None)

    def cost(function: Any, data: Any) -> int:
        with transaction.atomic(), CaptureQueriesContext(connection) as captured:
            function.enqueue(data)
        return len(captured)

    assert cost(declared, {"order_id": order.pk}) == 2  # the run and the link
    assert cost(declared, {"order_id": order.pk}) <= cost(look, {"order": order})
    assert cost(declared, {}) == cost(look, {"n": 1}) == 1
    assert durable.runs_for(order).count() == 3


def test_several_subjects_are_linked(durable_kit: Kit, order: Order) -> None:
    both = [ORDER, durable.Subject(Tenant, lambda event: event.data["tenant"])]
    look = durable.function(id="look", subject=both)(lambda ctx: None)
    assert look.subjects[1].model == "shop.Tenant"
    run = look.enqueue({"order_id": order.pk, "tenant": order.tenant.pk})
    assert durable.runs_for(order).get() == run
    assert durable.runs_for(order.tenant).get() == run


NO_KEYS = [None, True, [7], 1.5, "seven", str(uuid.UUID(int=0)), ""]


@pytest.mark.parametrize("data", [{}, *({"order_id": value} for value in NO_KEYS)])
def test_subject_without_a_key_links_nothing_and_warns_once(
    durable_kit: Kit, warned: Any, data: dict[str, Any]
) -> None:
    look = durable.function(id="look", subject=ORDER)(lambda ctx: "ran")
    run = look.enqueue(data)
    look.enqueue(data)
    assert run.subjects.count() == 0
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "ran"
    (text,) = [one for one in warned() if "Subject(" in one]
    assert text.startswith("Subject('shop.Order') of look links no instance: ")


def test_subject_whose_key_fails_links_nothing(
    durable_kit: Kit, warned: Any, order: Order
) -> None:
    broken = durable.Subject("shop.Order", lambda event: event.data["order_id"])
    look = durable.function(id="look", subject=[broken, ORDER])(lambda ctx: "ran")
    assert look.enqueue({"n": 1}).subjects.count() == 0
    assert any("KeyError" in one for one in warned())
    look.enqueue({"order_id": order.pk})
    assert durable.runs_for(order).count() == 1


def test_each_event_of_a_batch_links_its_own_instance(
    durable_kit: Kit, order: Order
) -> None:
    other = Order.objects.create(tenant=order.tenant, total=6)
    batch = durable.Batch(max_size=2, timeout="1h")
    durable.function(id="look", on=durable.Event("a/b"), batch=batch, subject=ORDER)(
        lambda ctx: len(ctx.events)
    )
    for one in (order, other):
        durable_kit.send("a/b", {"order_id": one.pk})
    durable_kit.run_until_idle()
    run = Run.objects.get()
    assert run.result() == 2
    assert durable.runs_for(order).get() == run == durable.runs_for(other).get()


def test_rerun_with_other_data_is_about_both(durable_kit: Kit, order: Order) -> None:
    other = Order.objects.create(tenant=order.tenant, total=6)
    look = durable.function(id="look", subject=ORDER)(lambda ctx: None)
    run = look.enqueue({"order_id": order.pk})
    durable_kit.run_until_idle()
    again = Run.objects.get(pk=run.pk).rerun(data={"order_id": other.pk})
    assert list(durable.runs_for(order)) == [again, run]
    assert durable.runs_for(other).get() == again


def refused(**parameters: Any) -> str:
    """Return why a declaration is refused."""
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="shop.pay", **parameters)(lambda ctx: None)
    assert "'shop.pay'" in str(caught.value)
    return str(caught.value)


def test_invalid_subjects_are_refused_with_their_place(durable_kit: Kit) -> None:
    missing = durable.Subject("shop.Odrer", "event.data.id")
    assert "Subject('shop.Odrer'): there is no such model" in refused(subject=missing)
    broken = durable.Subject("shop.Order", "event.data.")
    assert "Subject('shop.Order') key: the expression" in refused(subject=broken)
    assert "Expected Subject in subject" in refused(subject="shop.Order")
    assert "at most 5 in subject, got 6" in refused(subject=[ORDER] * 6)
    for wrong in (7, "Order", "shop.", None):
        with pytest.raises(durable.ConfigurationError, match="in Subject"):
            durable.Subject(wrong, "event.data.id")


# Changes by a run's own code


def test_run_is_about_the_tracked_instances_that_it_saves(
    durable_kit: Kit, order: Order
) -> None:
    changed = durable.ModelChange("shop.Order", updated=True, deleted=True)
    durable.function(id="watch", on=changed)(lambda ctx: None)
    other = Order.objects.create(tenant=order.tenant, total=6)

    def save(note: str) -> None:
        order.note = note
        order.save()
        order.tenant.save()

    def save_in_vain() -> None:
        with transaction.atomic():
            other.save()
            raise ValueError

    @durable.function(id="works")
    def works(ctx: durable.Context) -> None:
        ctx.step.run("save", save, "packed")
        ctx.step.run("again", save, "sent")
        with pytest.raises(durable.StepFailed):
            ctx.step.run("in vain", save_in_vain, retries=0)

    run = works.enqueue()
    durable_kit.run_until_idle()
    assert run in durable.runs_for(order)
    # Tenants are not tracked, and a write that is rolled back links nothing.
    assert not durable.runs_for(order.tenant).exists()
    assert not durable.runs_for(other).exists()
    assert run.subjects.count() == 1


def test_run_is_about_the_tracked_instances_that_it_deletes(
    durable_kit: Kit, order: Order
) -> None:
    durable.function(id="watch", on=durable.ModelChange("shop.Order", deleted=True))(
        lambda ctx: None
    )
    key = order.pk
    works = durable.function(id="works")(
        lambda ctx: ctx.step.run("delete", lambda: order.delete() and None)
    )
    run = works.enqueue()
    durable_kit.run_until_idle()
    assert list(run.subjects.values_list("object_pk", flat=True)) == [str(key)]


def test_changes_outside_of_runs_link_nothing(durable_kit: Kit, order: Order) -> None:
    durable.function(id="watch", on=durable.ModelChange("shop.Order", deleted=True))(
        lambda ctx: None
    )
    order.save()
    assert not durable.runs_for(order).exists()
