"""``ctx.step.wait_for_model``: resumed by the commit that makes a condition true."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.db.models import Q

from durable_jobs.models import Wait
from project.shop.models import Order, Tenant
from tests.engine.conftest import Later, Start


@pytest.fixture
def order() -> Order:
    """Return a new order."""
    return Order.objects.create(tenant=Tenant.objects.create(name="Ada"), total=5)


@pytest.fixture
def waiting(order: Order) -> Any:
    """Return a function that waits until the order is paid, for a day at most."""

    def until_paid(ctx):
        paid = ctx.step.wait_for_model(
            "paid", order, when=Q(status="paid"), timeout="1d"
        )
        ctx.step.sleep("nap", "1h")
        return None if paid is None else [type(paid).__name__, paid.pk, paid.note]

    return until_paid


def pay(order: Order, note: str) -> None:
    """Make the condition true."""
    order.status, order.note = Order.Status.PAID, note
    order.save()


def test_condition_that_is_already_true_needs_no_wait(
    start: Start, later: Later, waiting, order: Order
):
    pay(order, "before")
    order.status = Order.Status.NEW
    run = start(waiting)

    assert not Wait.objects.filter(kind="model").exists()
    assert later(run, "1h").result() == ["Order", order.pk, "before"]


def test_save_that_makes_the_condition_true_resumes_the_run(
    start: Start, later: Later, waiting, order: Order
):
    run = start(waiting)
    assert run.lease_token is None, "a worker is still busy"
    order.note = "not yet"
    order.save()
    assert later(run).steps.get(name="paid").status == "waiting"

    pay(order, "now")
    assert later(run).steps.get(name="paid").status == "completed"
    assert later(run, "1h").result() == ["Order", order.pk, "now"]


def test_save_of_another_instance_does_not_resume_the_run(
    start: Start, later: Later, waiting, order: Order
):
    run = start(waiting)
    pay(Order.objects.create(tenant=order.tenant, total=6), "another")

    assert later(run).steps.get(name="paid").status == "waiting"


def test_rolled_back_change_does_not_count(
    start: Start, later: Later, waiting, order: Order
):
    run = start(waiting)
    with transaction.atomic():
        pay(order, "never")
        transaction.set_rollback(True)

    assert later(run, "1h").steps.get(name="paid").status == "waiting"


def test_queryset_update_is_found_by_polling(
    start: Start, later: Later, waiting, order: Order
):
    """``update()`` sends no signal: the wait polls, with growing delays."""
    run = start(waiting)
    Order.objects.filter(pk=order.pk).update(status="paid", note="in bulk")
    assert later(run).steps.get(name="paid").status == "waiting"

    assert later(run, "5s").steps.get(name="paid").status == "completed"
    assert later(run, "1h").result() == ["Order", order.pk, "in bulk"]


def test_polling_continues(start: Start, later: Later, waiting, order: Order):
    run = later(start(waiting), "6h")
    Order.objects.filter(pk=order.pk).update(status="paid", note="in bulk")

    assert later(run, "13h").result() == ["Order", order.pk, "in bulk"]


def test_polling_is_rare(start: Start, later: Later, order: Order):
    entries = []

    def patient(ctx):
        entries.append(1)
        ctx.step.wait_for_model("paid", order, when=Q(status="paid"), timeout="30d")

    later(start(patient), "29d")
    assert len(entries) < 40


def test_timeout_returns_none(start: Start, later: Later, waiting, order: Order):
    run = later(start(waiting), "1d")
    assert run.steps.get(name="paid").status == "timed_out"

    pay(order, "too late")
    assert later(run, "1h").result() is None


def test_instance_that_is_deleted_is_never_true(
    start: Start, later: Later, waiting, order: Order
):
    run = start(waiting)
    Order.objects.get(pk=order.pk).delete()

    assert later(run, "23h").steps.get(name="paid").status == "waiting"
    assert later(run, "2h").result() is None


def test_condition_may_span_relations(start: Start, later: Later, order: Order):
    def until_renamed(ctx):
        when = Q(tenant__name="Grace") & ~Q(status="cancelled")
        return ctx.step.wait_for_model("renamed", order, when=when).tenant.name

    run = start(until_renamed)
    Tenant.objects.filter(pk=order.tenant_id).update(name="Grace")
    order.save()

    assert later(run).result() == "Grace"


@pytest.mark.parametrize(
    ("instance", "when", "expected"),
    [
        (None, Q(), "saved model instance"),
        (Order(), Q(), "saved model instance"),
        ("the order", {"status": "paid"}, "a Q"),
    ],
    ids=["nothing", "not saved", "not a Q"],
)
def test_wrong_wait_is_refused(start: Start, order: Order, instance, when, expected):
    chosen = order if instance == "the order" else instance

    def mistaken(ctx):
        ctx.step.wait_for_model("paid", chosen, when=when)

    run = start(mistaken)
    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]
