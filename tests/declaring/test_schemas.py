"""A pydantic schema validates data on sending and types it on reading."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from pydantic import BaseModel, Field

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit


class Placed(BaseModel):
    """The data of a placed order."""

    order_id: int
    total: Decimal = Field(gt=0)
    wanted: date | None = None


PLACED = durable.Event("shop/order.placed", schema=Placed)


def test_invalid_data_is_refused_on_sending(durable_kit: Kit) -> None:
    durable.function(id="bill", on=PLACED)(lambda ctx: None)
    with pytest.raises(durable.PayloadError) as caught:
        durable_kit.send("shop/order.placed", {"order_id": "seven", "total": 0})
    message = str(caught.value)
    assert "'shop/order.placed'" in message
    assert "Placed" in message
    assert "order_id: Input should be a valid integer" in message
    assert "total: Input should be greater than 0" in message
    assert not Event.objects.exists()
    assert not Run.objects.exists()


def test_invalid_event_refuses_all_that_were_sent_with_it(
    durable_kit: Kit,
) -> None:
    durable.function(id="bill", on=PLACED)(lambda ctx: None)
    events = [
        durable.NewEvent("shop/order.placed", {"order_id": 1, "total": "5"}),
        durable.NewEvent("shop/order.placed", {"order_id": 2}),
    ]
    with pytest.raises(durable.PayloadError, match="total: Field required"):
        durable_kit.send_many(events)
    assert not Event.objects.exists()


def test_function_sees_the_data_as_the_model(durable_kit: Kit) -> None:
    @durable.function(id="bill", on=PLACED)
    def bill(ctx):
        data = ctx.event.data
        assert isinstance(data, Placed)
        assert ctx.events[0].data == data
        return [data.order_id, data.total, data.wanted]

    data = {"order_id": 7, "total": "40.50", "wanted": "2026-03-01"}
    durable_kit.send("shop/order.placed", data)
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == [7, Decimal("40.50"), date(2026, 3, 1)]


def test_instance_of_the_schema_can_be_sent(durable_kit: Kit) -> None:
    @durable.function(id="bill", on=PLACED)
    def bill(ctx):
        return ctx.event.data

    sent = Placed(order_id=7, total=Decimal("40.50"))
    durable_kit.send("shop/order.placed", sent)
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == sent


def test_functions_without_the_schema_see_plain_data(durable_kit: Kit) -> None:
    durable.function(id="bill", on=PLACED)(lambda ctx: type(ctx.event.data).__name__)
    durable.function(id="log", on=durable.Event("shop/*"))(
        lambda ctx: type(ctx.event.data).__name__
    )
    durable_kit.send("shop/order.placed", {"order_id": 7, "total": 1})
    durable_kit.run_until_idle()
    results = {run.function: run.result() for run in Run.objects.all()}
    assert results == {"bill": "Placed", "log": "dict"}


def test_wildcard_validates_all_its_events(durable_kit: Kit) -> None:
    trigger = durable.Event("shop/*", schema=Placed)
    durable.function(id="bill", on=trigger)(lambda ctx: ctx.event.data.order_id)
    with pytest.raises(durable.PayloadError, match="Placed"):
        durable_kit.send("shop/order.lost", {})
    durable_kit.send("shop/order.placed", {"order_id": 7, "total": 1})
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == 7


def test_other_events_are_not_validated(durable_kit: Kit) -> None:
    durable.function(id="bill", on=PLACED)(lambda ctx: None)
    durable_kit.send("shop/order.paid", {"anything": "goes"})
    assert Event.objects.count() == 1


def test_conditions_and_other_consumers_see_plain_data(durable_kit: Kit) -> None:
    trigger = durable.Event(
        "shop/order.placed", schema=Placed, if_="event.data.total > 10"
    )
    durable.function(id="bill", on=trigger)(lambda ctx: ctx.event.data.order_id)
    durable_kit.send("shop/order.placed", {"order_id": 1, "total": 5})
    durable_kit.send("shop/order.placed", {"order_id": 2, "total": 50})
    durable_kit.send("shop/order.placed", Placed(order_id=3, total=Decimal(5)))
    durable_kit.send("shop/order.placed", Placed(order_id=4, total=Decimal(50)))
    durable_kit.run_until_idle()
    assert [run.result() for run in Run.objects.order_by("pk")] == [2, 4]
