"""Fields that events of model changes carry, and the keys that read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import F

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.triggers.conftest import Changes, Watch

EVERY = {"created": True, "updated": True, "deleted": True}


def test_include_carries_fields_whether_they_changed_or_not(
    watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(**EVERY, include=["tenant", "status"])
    order = Order.objects.create(tenant=tenant, total=1)
    order.note = "x"
    order.save()
    order.status = Order.Status.PAID
    order.save()
    order.delete()
    told = changes()
    assert [one["tenant"] for one in told] == [tenant.pk] * 4
    assert [one["status"] for one in told] == ["new", "new", "paid", "paid"]
    assert set(told[1]["changed"]) == {"note", "updated_at"}


def test_include_takes_a_foreign_key_by_its_attname_too(
    watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True, include=["tenant_id"])
    Order.objects.create(tenant=tenant, total=1)
    [told] = changes()
    assert told["tenant_id"] == tenant.pk
    assert "tenant" not in told.keys() - {"changed"}
    assert told["changed"]["tenant"] == [None, tenant.pk], (
        "fields have their declared names"
    )


def test_include_carries_stored_values_not_those_in_memory(
    watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True, updated=True, include=["tenant", "total", "note"])
    other = Tenant.objects.create(name="Bob")
    order = Order.objects.create(tenant=tenant, total=1)
    order.tenant, order.note = other, "x"
    order.save(update_fields=["note"])
    order = Order.objects.only("note").get()
    order.note = "y"
    order.save()
    order.total = F("total") + 1
    order.save(update_fields=["total"])
    told = changes()
    assert [one["tenant"] for one in told] == [tenant.pk] * 4
    assert [one["total"] for one in told] == [1, 1, 1, 2]
    assert [one["note"] for one in told] == ["", "x", "y", "y"]


def test_include_works_for_tracked_bulk_writes(
    watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True, updated=True, include=["tenant"])
    rows = durable.track(Order.objects.all())
    rows.bulk_create([Order(tenant=tenant, total=n) for n in range(2)])
    rows.update(note="x")
    rows.bulk_update(list(Order.objects.all()), ["note"])
    assert [one["tenant"] for one in changes()] == [tenant.pk] * 6


def test_include_of_several_functions_is_one_event(
    durable_kit: Kit, tenant: Tenant
) -> None:
    for name, include in (("a", ["tenant"]), ("b", ["status", "tenant"])):
        durable.function(
            id=name,
            on=durable.ModelChange("shop.Order", created=True, include=include),
        )(lambda ctx: ctx.event.data["tenant"])
    Order.objects.create(tenant=tenant, total=1)
    durable_kit.run_until_idle()
    assert [run.result() for run in Run.objects.all()] == [tenant.pk] * 2
    data = Event.objects.get().data
    assert data.keys() == {"model", "pk", "changed", "tenant", "status"}


def test_key_of_an_included_field_limits_each_tenant_on_updates(
    durable_kit: Kit, tenant: Tenant
) -> None:
    @durable.function(
        id="watch",
        on=durable.ModelChange("shop.Order", updated=True, include=["tenant"]),
        idempotency="event.data.tenant",
    )
    def watch(ctx):
        return ctx.event.data["tenant"]

    other = Tenant.objects.create(name="Bob")
    for owner in (tenant, other, tenant):
        order = Order.objects.create(tenant=owner, total=1)
        order.note = "x"
        order.save()
    durable_kit.run_until_idle()
    results = [run.result() for run in Run.objects.order_by("pk")]
    assert results == [tenant.pk, other.pk]


def declare(trigger: dict[str, Any], **options: Any) -> None:
    durable.function(
        id="watch", on=durable.ModelChange("shop.Order", **trigger), **options
    )(lambda ctx: None)


UPDATED = {"updated": True, "include": ["tenant"]}


@pytest.mark.parametrize(
    ("trigger", "options", "told"),
    [
        (
            UPDATED,
            {"idempotency": "event.data.tenant_id"},
            ["idempotency 'event.data.tenant_id'", "model, pk, changed, tenant",
             "add include=['tenant_id']"],
        ),
        (
            UPDATED,
            {"concurrency": durable.Concurrency(1, key="string(event.data.owner)")},
            ["Concurrency key", "event.data.owner", "model, pk, changed, tenant"],
        ),
        (
            {"created": True},
            {"throttle": durable.Throttle(1, "1m", key="event.data.changed.tenant_id")},
            ["changed.tenant_id", "id, tenant, status", "in changed"],
        ),
        (
            {"updated": True, "fields": ["tenant", "note"]},
            {"ordering": "event.data.changed.tenant[1]"},
            ["only if it changed", "include=['tenant']", "event.data.tenant"],
        ),
        (
            {"created": True},
            {"cancel_on": durable.CancelOn("gone", match="data.order")},
            ["cancel_on match 'data.order'", "model, pk, changed"],
        ),
        ({"created": True, "include": ["owner"]}, {}, ["tenant_id", "got 'owner'"]),
        ({"created": True, "include": ["pk"]}, {}, ["'pk', which every event has"]),
    ],
)  # fmt: skip
def test_key_with_a_missing_path_is_refused_when_it_is_declared(
    durable_kit: Kit, trigger: Any, options: Any, told: list[str]
) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        declare(trigger, **options)
    message = str(caught.value)
    assert message.startswith("Durable function 'watch': ModelChange('shop.Order')")
    for part in told:
        assert part in message


@pytest.mark.parametrize(
    ("trigger", "options"),
    [
        (UPDATED, {"idempotency": "event.data.tenant"}),
        (UPDATED, {"idempotency": "[event.data.model, event.data.pk, event.id]"}),
        (UPDATED, {"idempotency": "has(event.data.x) ? event.data.x : event.data.pk"}),
        (UPDATED, {"idempotency": lambda event: event.data["whatever"]}),
        ({"created": True}, {"ordering": "event.data.changed.tenant[1]"}),
        ({"updated": True, "fields": ["status"]},
         {"ordering": "event.data.changed.status[1]"}),
        (UPDATED, {"cancel_on": durable.CancelOn("gone", match="data.tenant")}),
    ],
    ids=range(7),
)  # fmt: skip
def test_key_with_a_guaranteed_path_is_accepted(
    durable_kit: Kit, trigger: Any, options: Any
) -> None:
    declare(trigger, **options)


@pytest.mark.parametrize(
    "wrong", [lambda: durable.ModelChange("shop.Order", created=True, include="tenant")]
)
def test_include_that_is_a_text_is_refused(wrong: Callable[[], Any]) -> None:
    with pytest.raises(durable.ConfigurationError, match="list of names, got a string"):
        wrong()
