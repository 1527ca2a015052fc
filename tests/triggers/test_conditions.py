"""``when``: a condition on the instance that changed."""

from __future__ import annotations

import pytest
from django.db.models import Q

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.triggers.conftest import Changes, Watch

CONDITIONS = {
    "Q": Q(total__gte=10, status="new"),
    "callable": lambda order: order.total >= 10 and order.status == "new",
}


@pytest.mark.parametrize("when", CONDITIONS.values(), ids=CONDITIONS)
def test_condition_decides_about_creations_and_updates(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant, when: Q
) -> None:
    watch(created=True, updated=True, when=when)
    small = Order.objects.create(tenant=tenant, total=5)
    Order.objects.create(tenant=tenant, total=10)
    small.note = "still small"
    small.save()
    small.total = 50
    small.save()
    assert [told["changed"]["total"][1] for told in changes()] == [10, 50]


@pytest.mark.parametrize("when", CONDITIONS.values(), ids=CONDITIONS)
def test_condition_decides_about_deletions(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant, when: Q
) -> None:
    watch(deleted=True, when=when)
    for total in (5, 10):
        Order.objects.create(tenant=tenant, total=total).delete()
    assert [told["changed"]["total"][0] for told in changes()] == [10]


def test_condition_may_follow_relations(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True, when=Q(tenant__name="Ada"))
    other = Tenant.objects.create(name="Bob")
    Order.objects.create(tenant=other, total=1)
    Order.objects.create(tenant=tenant, total=2)
    assert [told["changed"]["total"][1] for told in changes()] == [2]


def test_deletion_condition_may_use_the_key_of_the_related_row(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(deleted=True, when=Q(tenant=tenant.pk) | Q(tenant_id=-1))
    other = Tenant.objects.create(name="Bob")
    for total, owner in enumerate((other, tenant)):
        Order.objects.create(tenant=owner, total=total).delete()
    assert [told["changed"]["total"][0] for told in changes()] == [1]


def test_trigger_needs_both_fields_and_condition(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True, fields=["status"], when=Q(total__gte=10))
    for total in (5, 10):
        order = Order.objects.create(tenant=tenant, total=total)
        order.note = "x"
        order.save()
        order.status = Order.Status.PAID
        order.save()
    [told] = changes()
    assert told["changed"]["status"] == ["new", "paid"]


@pytest.mark.parametrize("kind", ["created", "updated", "deleted"])
def test_failing_condition_keeps_the_save_and_a_skipped_run(
    durable_kit: Kit, watch: Watch, tenant: Tenant, kind: str
) -> None:
    def broken(order: Order) -> bool:
        raise LookupError("no such rule")

    order = Order.objects.create(tenant=tenant, total=5)
    watch(**{kind: True}, when=broken)
    if kind == "created":
        Order.objects.create(tenant=tenant, total=6)
    elif kind == "updated":
        order.save()
    else:
        order.delete()
    run = Run.objects.get()
    assert run.status == "skipped"
    assert "LookupError: no such rule" in run.reason
    assert "shop.Order" in run.reason
    assert Order.objects.count() == {"created": 2, "updated": 1, "deleted": 0}[kind]


def test_condition_on_a_missing_field_is_refused(durable_kit: Kit) -> None:
    trigger = durable.ModelChange("shop.Order", created=True, when=Q(sum__gt=1))
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="watch", on=trigger)(lambda ctx: None)
    assert "'watch'" in str(caught.value)
    assert "sum" in str(caught.value)


@pytest.mark.parametrize("wrong", ["total > 10", {"total": 10}, True])
def test_condition_is_a_q_or_a_callable(wrong: Q) -> None:
    with pytest.raises(
        durable.ConfigurationError, match="when to be a Q or a callable"
    ):
        durable.ModelChange("shop.Order", created=True, when=wrong)
