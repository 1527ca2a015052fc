"""I1: a change and its event are one transaction, in any transaction mode.

The guard is ``together`` around ``save_base``. Without it, outside of ``atomic()``, the
row commits before the event is written.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import IntegrityError, connection, transaction

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.triggers.conftest import Watch


class Regret(Exception):
    """The project's own error."""


def create(tenant: Tenant) -> None:
    """Create an order."""
    Order.objects.create(tenant=tenant, total=2)


def update(tenant: Tenant) -> None:
    """Update the only order."""
    order = Order.objects.get()
    order.total = 2
    order.save()


def delete(tenant: Tenant) -> None:
    """Delete the only order."""
    Order.objects.get().delete()


CHANGES = {"create": create, "update": update, "delete": delete}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.django_db(transaction=True)
def test_rolled_back_change_starts_nothing(
    durable_kit: Kit, watch: Watch, tenant: Tenant, change: Callable[[Tenant], None]
) -> None:
    Order.objects.create(tenant=tenant, total=1)
    watch(created=True, updated=True, deleted=True)
    with pytest.raises(Regret), transaction.atomic():  # noqa: PT012  # the change is the point
        change(tenant)
        raise Regret
    assert Order.objects.get().total == 1
    durable_kit.run_until_idle()
    assert not Event.objects.exists()
    assert not Run.objects.exists()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.django_db(transaction=True)
def test_committed_change_starts_one_run(
    durable_kit: Kit,
    watch: Watch,
    tenant: Tenant,
    change: Callable[[Tenant], None],
    atomic: bool,
) -> None:
    Order.objects.create(tenant=tenant, total=1)
    watch(created=True, updated=True, deleted=True)
    if atomic:
        with transaction.atomic():
            change(tenant)
    else:
        change(tenant)
    durable_kit.run_until_idle()
    assert Run.objects.get().status == "completed"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.django_db(transaction=True)
def test_event_that_cannot_be_written_undoes_the_change(
    durable_kit: Kit, watch: Watch, tenant: Tenant, change: Callable[[Tenant], None]
) -> None:
    Order.objects.create(tenant=tenant, total=1)
    watch(created=True, updated=True, deleted=True)

    def refuse(execute, sql, params, many, context):
        if "durable_jobs_run" in sql and sql.startswith("INSERT"):
            raise Regret
        return execute(sql, params, many, context)

    with connection.execute_wrapper(refuse), pytest.raises(Regret):
        change(tenant)
    assert Order.objects.get().total == 1
    assert not Event.objects.exists()
    # The connection remains usable.
    change(tenant)
    assert Event.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_run_does_not_start_before_the_commit(
    durable_kit: Kit, watch: Watch, tenant: Tenant
) -> None:
    started: list[str] = []
    durable.function(id="look", on=durable.ModelChange("shop.Order", created=True))(
        lambda ctx: started.append(ctx.instance.note)
    )
    with transaction.atomic():
        order = Order.objects.create(tenant=tenant, total=1)
        order.note = "complete"
        order.save()
        assert started == []
    durable_kit.run_until_idle()
    assert started == ["complete"]


@pytest.mark.django_db(transaction=True)
def test_failed_save_starts_nothing(
    durable_kit: Kit, watch: Watch, tenant: Tenant
) -> None:
    durable.function(id="look", on=durable.ModelChange("shop.Tenant", created=True))(
        lambda ctx: None
    )
    with pytest.raises(IntegrityError):
        Tenant.objects.create(name=tenant.name)
    assert not Event.objects.exists()
