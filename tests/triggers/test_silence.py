"""Writes that are no change of an instance start nothing, and cost nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import DjangoAssertNumQueries

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from project.shop.models import Airport, Order, Tenant
from tests.triggers.conftest import Watch


def test_fixtures_are_no_changes(
    durable_kit: Kit, watch: Watch, tenant: Tenant, tmp_path: Path
) -> None:
    watch(created=True, updated=True)
    row = {
        "model": "shop.order",
        "pk": 7,
        "fields": {
            "tenant": tenant.pk,
            "total": "5.00",
            "created_at": "2026-01-01T00:00:00Z",
            "updated_at": "2026-01-01T00:00:00Z",
        },
    }
    path = tmp_path / "orders.json"
    path.write_text(json.dumps([row]))
    for _ in range(2):
        call_command("loaddata", path, verbosity=0)
    assert Order.objects.get().total == 5
    assert not Event.objects.exists()
    assert not Run.objects.exists()


def test_bulk_writes_are_silent(durable_kit: Kit, watch: Watch, tenant: Tenant) -> None:
    watch(created=True, updated=True)
    orders = Order.objects.bulk_create(Order(tenant=tenant, total=n) for n in (1, 2))
    Order.objects.update(status="paid")
    for order in orders:
        order.note = "x"
    Order.objects.bulk_update(orders, ["note"])
    assert Order.objects.filter(status="paid", note="x").count() == 2
    assert not Event.objects.exists()


def test_other_kinds_of_change_are_silent(
    durable_kit: Kit, watch: Watch, tenant: Tenant
) -> None:
    watch(deleted=True)
    order = Order.objects.create(tenant=tenant, total=1)
    order.save()
    assert not Event.objects.exists()


def test_removed_functions_receive_nothing(tenant: Tenant) -> None:
    with Kit():
        durable.function(id="look", on=durable.ModelChange("shop.Order", created=True))(
            lambda ctx: None
        )
    Order.objects.create(tenant=tenant, total=1)
    assert not Event.objects.exists()


def test_models_without_triggers_cost_nothing_more(
    durable_kit: Kit, watch: Watch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    watch(created=True, updated=True, deleted=True)
    Tenant.objects.create(name="first")  # may check for waits
    with django_assert_num_queries(1):
        tenant = Tenant.objects.create(name="Ada")
    with django_assert_num_queries(1):
        tenant.save()


def test_deletion_of_rows_without_triggers_is_one_statement(
    durable_kit: Kit, watch: Watch, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    watch(deleted=True)
    for number in range(3):
        Airport.objects.create(icao=f"ED{number}", elevation=1, lat=50.0, lon=8.5)
    # With receivers of deletions, Django loads the rows first.
    with django_assert_num_queries(1):
        Airport.objects.all().delete()


def test_watched_save_costs_one_query_and_two_writes_more(
    durable_kit: Kit, watch: Watch, tenant: Tenant
) -> None:
    watch(created=True, updated=True)
    with CaptureQueriesContext(connection) as captured:
        order = Order.objects.create(tenant=tenant, total=1)
    # The order, the event, the run, and the subject that links them.
    assert len(captured) == 4
    order.note = "x"
    with CaptureQueriesContext(connection) as captured:
        order.save()
    assert len(captured) == 5


@pytest.mark.parametrize("raw", [True, False])
def test_raw_saves_are_no_changes(
    durable_kit: Kit, watch: Watch, tenant: Tenant, raw: bool
) -> None:
    watch(created=True)
    order = Order(tenant=tenant, total=1)
    order.created_at = order.updated_at = durable_kit.now()
    order.save_base(raw=raw)
    assert Event.objects.exists() is not raw
