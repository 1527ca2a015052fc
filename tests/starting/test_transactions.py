"""I1: a committed send starts exactly its runs; a rolled-back send starts none.

The guard is that events and runs are rows of the caller's own transaction. With a
separate transaction or connection these tests fail.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import transaction

from durable_jobs import durable
from durable_jobs.models import Event, IdempotencyKey, Run, Subject, Wait
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant

Start = Callable[[], object]


class Regret(Exception):
    """The project's own error, raised after it has started something."""


def bill(ctx):
    """Do something with the order."""
    return ctx.event.data["order_id"]


@pytest.fixture
def starts(durable_kit: Kit) -> dict[str, Start]:
    """Return each way of starting ``bill``, which waits for things from its start."""
    billing = durable.function(
        id="bill",
        on=durable.Event("shop/order.placed"),
        cancel_on=durable.CancelOn("shop/stop", match="data.order_id"),
        timeouts=durable.Timeouts(start="1h", finish="2h"),
    )(bill)
    data = {"order_id": 7, "tenant": Tenant.objects.create(name="Ada's")}
    placed = durable.NewEvent("shop/order.placed", data)
    return {
        "send": lambda: durable.send("shop/order.placed", data),
        "send with an id": lambda: durable.send("shop/order.placed", data, id="o-7"),
        "send_many": lambda: durable.send_many([placed]),
        "enqueue": lambda: billing.enqueue(data),
        "enqueue with a key": lambda: billing.using(key="o-7").enqueue(data),
    }


WAYS = ["send", "send with an id", "send_many", "enqueue", "enqueue with a key"]
TABLES = (Event, Run, Wait, Subject, IdempotencyKey)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("nested", [False, True], ids=["outermost", "savepoint"])
@pytest.mark.django_db(transaction=True)
def test_rolled_back_start_starts_nothing(
    durable_kit: Kit, starts: dict[str, Start], way: str, nested: bool
) -> None:
    with pytest.raises(Regret), transaction.atomic():  # noqa: PT012  # the start is the point
        if nested:
            with transaction.atomic():
                starts[way]()
        else:
            starts[way]()
        raise Regret
    assert durable_kit.run_until_idle() == 0
    for table in TABLES:
        assert not table._default_manager.exists()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
@pytest.mark.django_db(transaction=True)
def test_committed_start_starts_one_run(
    durable_kit: Kit, starts: dict[str, Start], way: str, atomic: bool
) -> None:
    if atomic:
        with transaction.atomic():
            starts[way]()
    else:
        starts[way]()
    durable_kit.run_until_idle()
    assert [run.result() for run in Run.objects.all()] == [7]
    assert Wait.objects.count() == 0
    assert Subject.objects.get().run == Run.objects.get()


@pytest.mark.parametrize("way", WAYS)
def test_rolled_back_savepoint_takes_its_start_with_it(
    durable_kit: Kit, starts: dict[str, Start], way: str
) -> None:
    with transaction.atomic():
        durable.send("shop/order.placed", {"order_id": 1})
        with pytest.raises(Regret), transaction.atomic():  # noqa: PT012  # the start is the point
            starts[way]()
            raise Regret
    durable_kit.run_until_idle()
    assert [run.result() for run in Run.objects.all()] == [1]


def test_change_and_its_event_are_one_transaction(durable_kit: Kit) -> None:
    @durable.function(id="bill", on=durable.Event("shop/order.placed"))
    def billing(ctx):
        return Order.objects.get(pk=ctx.event.data["order_id"]).total

    tenant = Tenant.objects.create(name="Ada's")
    with transaction.atomic():
        order = Order.objects.create(tenant=tenant, total=40)
        durable.send("shop/order.placed", {"order_id": order.pk})
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == 40


@pytest.mark.django_db(transaction=True)
def test_refused_start_leaves_the_callers_transaction_whole(
    durable_kit: Kit,
) -> None:
    @durable.function(id="bill")
    def billing(ctx):
        pass

    with transaction.atomic():
        Tenant.objects.create(name="Ada's")
        billing.using(key="k").enqueue({"a": 1})
        with pytest.raises(durable.DuplicateKeyError):
            billing.using(key="k").enqueue({"a": 2})
        with pytest.raises(durable.PayloadError):
            durable.send("a/b", {"x": float("nan")})
        with pytest.raises(durable.ConfigurationError):
            durable.send("durable/mine")
        Tenant.objects.create(name="Bob's")
    assert Tenant.objects.count() == 2
    assert Run.objects.count() == 1


def test_run_exists_at_once(durable_kit: Kit) -> None:
    billing = durable.function(id="bill")(bill)
    run = billing.enqueue({"order_id": 7})
    assert isinstance(run, Run)
    assert (run.status, run.function, run.data) == ("queued", "bill", {"order_id": 7})
    assert run.queued_at == run.due_at == durable_kit.now()
    assert (run.started_at, run.ended_at) == (None, None)
    stored = Run.objects.get(pk=run.pk)
    for field in Run._meta.concrete_fields:
        assert getattr(stored, field.attname) == getattr(run, field.attname)
