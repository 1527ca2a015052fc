"""Functions that start when an instance is created, updated or deleted."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.db.models import F
from django.test.utils import isolate_apps

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from project.shop.models import Airport, Order, Tenant, Upload
from tests.triggers.conftest import Changes, Watch


def test_creation_event_has_all_fields(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True)
    order = Order.objects.create(tenant=tenant, total=40, note="x")
    order.note = "y"
    order.save()
    order.delete()
    [told] = changes()
    assert told["model"] == "shop.Order"
    changed = told["changed"]
    assert told["pk"] == changed["id"][1]
    assert changed["total"] == [None, Decimal("40")]
    assert changed["note"] == [None, "x"]
    assert changed["tenant"] == [None, tenant.pk]
    assert changed["status"] == [None, "new"]
    assert changed["created_at"] == [None, order.created_at]


def test_update_event_has_the_changes_and_old_values(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True)
    order = Order.objects.create(tenant=tenant, total=40)
    before = order.updated_at
    order.status, order.total = Order.Status.PAID, Decimal("42.50")
    order.save()
    [told] = changes()
    assert told == {
        "model": "shop.Order",
        "pk": order.pk,
        "changed": {
            "status": ["new", "paid"],
            "total": [Decimal("40.00"), Decimal("42.50")],
            "updated_at": [before, order.updated_at],
        },
    }


def test_deletion_event_has_the_old_fields(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(deleted=True)
    order = Order.objects.create(tenant=tenant, total=40, note="x")
    key = order.pk
    order.delete()
    [told] = changes()
    assert (told["model"], told["pk"]) == ("shop.Order", key)
    assert told["changed"]["note"] == ["x", None]
    assert told["changed"]["tenant"] == [tenant.pk, None]


def test_queryset_and_cascading_deletions_create_events(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(deleted=True)
    for total in (1, 2, 3):
        Order.objects.create(tenant=tenant, total=total)
    Order.objects.filter(total__lt=2).delete()
    tenant.delete()
    totals = [told["changed"]["total"][0] for told in changes()]
    assert sorted(totals) == [1, 2, 3]


def test_two_saves_are_two_events(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True, updated=True)
    order = Order.objects.create(tenant=tenant, total=1)
    for note in ("a", "b"):
        order.note = note
        order.save()
    told = changes()
    assert [one["changed"]["note"] for one in told] == [
        [None, ""], ["", "a"], ["a", "b"]
    ]  # fmt: skip
    names = Event.objects.order_by("pk").values_list("name", flat=True)
    assert list(names) == [
        "durable/model.created", "durable/model.updated", "durable/model.updated"
    ]  # fmt: skip
    assert Run.objects.exclude(event_id=None).count() == 3


def test_save_without_changes_is_an_update(durable_kit: Kit, changes: Changes) -> None:
    durable.function(id="watch", on=durable.ModelChange("shop.Tenant", updated=True))(
        lambda ctx: ctx.event.data
    )
    tenant = Tenant.objects.create(name="Ada")
    tenant.save()
    assert [told["changed"] for told in changes()] == [{}]


def test_trigger_with_fields_ignores_other_changes(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True, fields=["status", "total"])
    order = Order.objects.create(tenant=tenant, total=40)
    order.note = "x"
    order.save()
    assert changes() == []
    order.status = Order.Status.PAID
    order.save()
    order.save()
    [told] = changes()
    assert told["changed"]["status"] == ["new", "paid"]


def test_fields_do_not_hinder_creations(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True, updated=True, fields=["status"])
    order = Order.objects.create(tenant=tenant, total=40)
    order.note = "x"
    order.save()
    assert len(changes()) == 1


def test_equal_value_of_another_type_is_no_change(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True, fields=["total", "tenant"])
    order = Order.objects.create(tenant=tenant, total=40)
    for total in ("40", 40.0, Decimal("40.00")):
        order.total = total
        order.save()
    order.tenant_id = order.tenant.pk
    order.save()
    assert changes() == []


def test_update_fields_limits_the_event_to_them(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True)
    order = Order.objects.create(tenant=tenant, total=40)
    order.note, order.status = "not saved", Order.Status.PAID
    order.save(update_fields=["status"])
    [told] = changes()
    assert told["changed"] == {"status": ["new", "paid"]}


def test_old_value_is_the_stored_one(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True, fields=["status"])
    order = Order.objects.create(tenant=tenant, total=40)
    stale = Order.objects.get(pk=order.pk)
    order.status = Order.Status.PAID
    order.save()
    stale.status = Order.Status.SHIPPED
    stale.save()
    told = [one["changed"]["status"] for one in changes()]
    assert told == [["new", "paid"], ["paid", "shipped"]]


def test_database_expression_is_resolved_in_the_event(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True, fields=["total"])
    order = Order.objects.create(tenant=tenant, total=40)
    order.total = F("total") + 2
    order.save()
    [told] = changes()
    assert told["changed"]["total"] == [Decimal("40.00"), Decimal("42.00")]


def test_deferred_instance_reports_its_loaded_fields(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(updated=True)
    order = Order.objects.create(tenant=tenant, total=40)
    partial = Order.objects.only("status").get(pk=order.pk)
    partial.status = Order.Status.PAID
    partial.save()
    [told] = changes()
    assert told["changed"]["status"] == ["new", "paid"]
    assert "note" not in told["changed"]


def test_keys_and_files_are_reported_as_stored(
    durable_kit: Kit, changes: Changes
) -> None:
    for label in ("shop.Airport", "shop.Upload"):
        trigger = durable.ModelChange(label, created=True, updated=True)
        durable.function(id=label, on=trigger)(lambda ctx: ctx.event.data)
    Airport.objects.create(
        icao="EDDF",
        name="Frankfurt",
        country="DE",
        elevation=1,
        lat=50.0,
        lon=8.5,
        tz="x",
    )
    upload = Upload.objects.create(file="uploads/a.csv")
    upload.file = "uploads/b.csv"
    upload.save()
    told = changes()
    assert told[0]["pk"] == "EDDF"
    assert told[1]["changed"]["file"] == [None, "uploads/a.csv"]
    assert told[2]["changed"] == {"file": ["uploads/a.csv", "uploads/b.csv"]}


def test_instance_is_loaded_fresh(durable_kit: Kit, tenant: Tenant) -> None:
    @durable.function(id="look", on=durable.ModelChange("shop.Order", created=True))
    def look(ctx):
        first = ctx.instance
        ctx.step.sleep("a while", "1h")
        return [None if one is None else one.status for one in (first, ctx.instance)]

    order, gone = (Order.objects.create(tenant=tenant, total=n) for n in (1, 2))
    Order.objects.update(status="paid")
    durable_kit.run_until_idle()
    Order.objects.update(status="shipped")
    gone.delete()
    durable_kit.advance("1h")
    results = [run.result() for run in Run.objects.order_by("pk")]
    assert results == [["shipped", "shipped"], [None, None]]
    assert order.pk


def test_function_with_two_triggers_on_one_change_starts_once(
    durable_kit: Kit, tenant: Tenant
) -> None:
    durable.function(
        id="watch",
        on=[
            durable.ModelChange("shop.Order", created=True),
            durable.ModelChange("shop.order", created=True, updated=True),
        ],
    )(lambda ctx: None)
    Order.objects.create(tenant=tenant, total=1)
    assert Run.objects.count() == 1


def test_functions_on_one_change_share_one_event(
    durable_kit: Kit, watch: Watch, tenant: Tenant
) -> None:
    watch(created=True)
    durable.function(id="two", on=durable.ModelChange("shop.Order", created=True))(
        lambda ctx: ctx.event.name
    )
    Order.objects.create(tenant=tenant, total=1)
    durable_kit.run_until_idle()
    assert Event.objects.count() == 1
    assert Run.objects.get(function="two").result() == "durable/model.created"


@isolate_apps("project.shop")
def test_proxy_is_the_same_model(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    class Rush(Order):
        class Meta:
            proxy = True
            app_label = "shop"

    watch(created=True, updated=True)
    order: Any = Rush.objects.create(tenant=tenant, total=1)
    order.save()
    assert [told["model"] for told in changes()] == ["shop.Order"] * 2
    assert durable.runs_for(order).count() == 2
    assert durable.runs_for(Order.objects.get()).count() == 2


@pytest.mark.parametrize("label", ["shop.Nothing", "nothing.Order"])
def test_missing_model_is_refused(durable_kit: Kit, label: str) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="watch", on=durable.ModelChange(label, created=True))(
            lambda ctx: None
        )
    assert "'watch'" in str(caught.value)
    assert "no such model" in str(caught.value)


def test_missing_field_is_refused(durable_kit: Kit) -> None:
    trigger = durable.ModelChange("shop.Order", updated=True, fields=["sum"])
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="watch", on=trigger)(lambda ctx: None)
    assert "'watch'" in str(caught.value)
    assert "got 'sum'" in str(caught.value)
