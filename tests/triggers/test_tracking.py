"""``durable.track``: bulk writes that create an event for each row."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.db.models import Q
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.triggers.conftest import Changes, Watch


@pytest.fixture
def orders(durable_kit: Kit, tenant: Tenant) -> list[Order]:
    """Return three orders."""
    return [Order.objects.create(tenant=tenant, total=n) for n in (1, 2, 3)]


def test_update_creates_an_event_for_each_row(
    durable_kit: Kit, watch: Watch, changes: Changes, orders: list[Order]
) -> None:
    watch(updated=True)
    count = durable.track(Order.objects.filter(total__gt=1)).update(status="paid")
    assert count == 2
    told = changes()
    assert [one["pk"] for one in told] == [orders[1].pk, orders[2].pk]
    assert {tuple(one["changed"]["status"]) for one in told} == {("new", "paid")}
    assert all(list(one["changed"]) == ["status"] for one in told)


def test_rows_that_leave_the_filter_by_the_update_have_events(
    durable_kit: Kit, watch: Watch, changes: Changes, orders: list[Order]
) -> None:
    watch(updated=True)
    rows = Order.objects.filter(status="new", total__lte=2)
    assert durable.track(rows).update(status="paid", total=9) == 2
    assert len(changes()) == 2
    assert Order.objects.filter(total=9).count() == 2


def test_rows_count_only_if_the_watched_fields_changed(
    durable_kit: Kit, watch: Watch, changes: Changes, orders: list[Order]
) -> None:
    watch(updated=True, fields=["status"])
    Order.objects.filter(pk=orders[0].pk).update(status="paid")
    assert durable.track(Order.objects.all()).update(status="paid", note="x") == 3
    assert [one["pk"] for one in changes()] == [orders[1].pk, orders[2].pk]


def test_conditions_are_asked(
    durable_kit: Kit, watch: Watch, changes: Changes, orders: list[Order]
) -> None:
    watch(updated=True, when=lambda order: order.total == 3 and order.status == "paid")
    durable.track(Order.objects.all()).update(status="paid")
    assert [one["pk"] for one in changes()] == [orders[2].pk]


def test_bulk_update_creates_an_event_for_each_row(
    durable_kit: Kit, watch: Watch, changes: Changes, orders: list[Order]
) -> None:
    watch(updated=True)
    for order in orders:
        order.total = order.total * 2
    count = durable.track(Order.objects.all()).bulk_update(orders[:2], ["total"])
    assert count == 2
    assert [one["changed"] for one in changes()] == [
        {"total": [Decimal("1.00"), Decimal("2.00")]},
        {"total": [Decimal("2.00"), Decimal("4.00")]},
    ]


def test_bulk_creation_creates_an_event_for_each_row(
    durable_kit: Kit, watch: Watch, changes: Changes, tenant: Tenant
) -> None:
    watch(created=True)
    made = durable.track(Order.objects.all()).bulk_create(
        Order(tenant=tenant, total=n) for n in (5, 6)
    )
    told = changes()
    assert [one["pk"] for one in told] == [order.pk for order in made]
    assert [one["changed"]["total"] for one in told] == [[None, 5], [None, 6]]


def test_bulk_deletion_creates_an_event_for_each_row(
    durable_kit: Kit, watch: Watch, changes: Changes, orders: list[Order]
) -> None:
    watch(deleted=True)
    count, _ = durable.track(Order.objects.filter(total__lt=3)).delete()
    assert count == 2
    assert len(changes()) == 2


def test_call_of_any_size_is_a_few_statements(
    durable_kit: Kit, watch: Watch, tenant: Tenant
) -> None:
    watch(updated=True)
    Order.objects.bulk_create(Order(tenant=tenant, total=n) for n in range(60))
    counts = []
    for largest in (1, 60):
        rows = Order.objects.filter(total__lt=largest)
        with CaptureQueriesContext(connection) as captured:
            durable.track(rows).update(note=f"below {largest}")
        counts.append(len(captured))
    # SQLite limits the values of a statement: a few more statements there.
    assert counts[1] <= counts[0] + 3
    assert Run.objects.count() == 61


@pytest.mark.django_db(transaction=True)
def test_write_and_its_events_are_one_transaction(
    durable_kit: Kit, watch: Watch, orders: list[Order]
) -> None:
    watch(updated=True)

    class Regret(Exception):
        pass

    with pytest.raises(Regret), transaction.atomic():  # noqa: PT012  # the write is the point
        durable.track(Order.objects.all()).update(status="paid")
        raise Regret
    assert not Order.objects.filter(status="paid").exists()
    assert not Event.objects.exists()


def test_runs_are_for_their_rows(
    durable_kit: Kit, watch: Watch, orders: list[Order]
) -> None:
    watch(updated=True)
    durable.track(Order.objects.all()).update(status="paid")
    for order in orders:
        assert durable.runs_for(order).get().data["pk"] == order.pk


def test_wait_for_a_model_ends(durable_kit: Kit, orders: list[Order]) -> None:
    @durable.function(id="wait")
    def wait(ctx):
        found = ctx.step.wait_for_model("paid", orders[0], when=Q(status="paid"))
        return [found.status, durable_kit.now()]

    run = wait.enqueue()
    durable_kit.run_until_idle()
    durable.track(Order.objects.all()).update(status="paid")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == ["paid", durable_kit.now()]


def test_model_without_triggers_can_be_tracked(
    durable_kit: Kit, orders: list[Order]
) -> None:
    assert durable.track(Order.objects.all()).update(status="paid") == 3
    assert durable.track(Order.objects.none()).update(status="new") == 0
    assert not Event.objects.exists()


@pytest.mark.parametrize("wrong", [Order, "shop.Order", None, []])
def test_track_accepts_only_querysets(durable_kit: Kit, wrong: object) -> None:
    with pytest.raises(durable.ConfigurationError, match="takes a queryset"):
        durable.track(wrong)
