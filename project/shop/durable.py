"""The durable functions of the shop: orders, complaints and imports of airports."""

from __future__ import annotations

import csv
import functools
import io
import logging
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any, Literal

from django.core.exceptions import ValidationError
from pydantic import BaseModel, Field

from durable_jobs import durable
from project.shop.forms import SettlementForm
from project.shop.models import Airport, ImportSummary, Order, Upload

logger = logging.getLogger("project.shop")

# Orders


def give_up(ctx: durable.Context) -> None:
    """Cancel the order of a cancelled run of ``fulfil_order``."""
    order_id = ctx.event.data["event"]["data"]["order_id"]
    ctx.step.atomic("cancel", move, order_id, Order.Status.CANCELLED)


@durable.function(
    on=durable.Event("shop/checkout.completed", if_="event.data.total > 0"),
    cancel_on=durable.CancelOn("shop/checkout.revoked", match="data.order_id"),
    on_cancel=give_up,
)
def fulfil_order(ctx: durable.Context) -> dict[str, Any]:
    """Reserve an order, wait up to three days for the payment, then pack and ship."""
    order_id = ctx.event.data["order_id"]
    ctx.step.atomic("reserve", move, order_id, Order.Status.RESERVED)
    payment = ctx.step.wait_for_event(
        "payment", "shop/payment.received", match="data.order_id", timeout="3d"
    )
    if payment is None:
        ctx.step.atomic("too late", move, order_id, Order.Status.CANCELLED)
        return {"shipped": False}
    ctx.step.atomic("paid", move, order_id, Order.Status.PAID)
    ctx.step.sleep("packing", "1h")
    ctx.step.atomic("ship", move, order_id, Order.Status.SHIPPED)
    ctx.step.send_event(
        "tell", durable.NewEvent("shop/parcel.sent", {"order_id": order_id})
    )
    return {"shipped": True}


class Refund(BaseModel):
    """The input of a refund."""

    amount: Decimal = Field(gt=0, max_digits=12, decimal_places=2)
    reason: Literal["broken", "late", "unwanted"] = Field(title="What was wrong")
    tell: bool = Field(True, title="Tell the tenant")


@durable.function(admin_action=Order, input=Refund, retries=3)
def refund_order(ctx: durable.Context) -> dict[str, Any]:
    """Refund an order that a staff user selected in the admin."""
    refund: Refund = ctx.event.data
    ctx.step.atomic("note", note_refund, ctx.instance.pk, refund.amount, refund.reason)
    if refund.tell:
        ctx.step.send_event(
            "tell", durable.NewEvent("shop/refunded", {"order_id": ctx.instance.pk})
        )
    return {"refunded": refund.amount}


def note_refund(order_id: int, amount: Decimal, reason: str) -> None:
    """Cancel an order and note the refunded amount and the reason."""
    note = f"{amount} back: {reason}"
    Order.objects.filter(pk=order_id).update(note=note, status=Order.Status.CANCELLED)


def move(order_id: int, status: str) -> None:
    """Change the status of an order."""
    Order.objects.filter(pk=order_id).update(status=status)


# Complaints

#: The largest amount that is refunded without an approval.
GOODWILL = Decimal(20)


@durable.function(on=durable.Event("shop/complaint.received"))
def settle_complaint(ctx: durable.Context) -> dict[str, Any]:
    """Refund a complaint. An amount above ``GOODWILL`` needs a manager's approval."""
    order: Order = ctx.event.data["order"]
    amount = Decimal(ctx.event.data["amount"])
    if amount > GOODWILL:
        try:
            settled = ctx.step.approve(
                "manager",
                title=f"Give back {amount} for {order}",
                permission="shop.settle_complaint",
                form=SettlementForm,
                timeout="7d",
            )
        except durable.ApprovalRejected as rejected:
            ctx.step.atomic("refuse", note, order.pk, f"refused: {rejected.reason}")
            return {"back": Decimal(0)}
        amount = GOODWILL if settled is None else settled["amount"]
    ctx.step.atomic("give back", note, order.pk, f"{amount} given back")
    return {"back": amount}


def note(order_id: int, text: str) -> None:
    """Change the note of an order."""
    Order.objects.filter(pk=order_id).update(note=text[:200])


# Airports

CHUNK = 2000

Chunk = tuple[int, int]


@durable.function(on=durable.Event("file/uploaded"), retries=2)
def import_airports(ctx: durable.Context) -> dict[str, int]:
    """Import the airports of an uploaded file, each row exactly once."""
    upload_id = ctx.event.data["upload_id"]
    chunks = ctx.step.run("parse", find_chunks, upload_id)
    rejected = ctx.step.map(
        "validate",
        functools.partial(validate_chunk, upload_id),
        chunks,
        max_concurrency=4,
    )
    ctx.step.sleep("let it settle", "2s")
    written = 0
    for chunk, invalid in zip(chunks, rejected, strict=True):
        name = f"write {chunk[0]}"
        written += ctx.step.atomic(name, write_chunk, upload_id, chunk, invalid)
    done = {
        "upload_id": upload_id,
        "run_id": ctx.run_id,
        "rows": written,
        "rejected": sum(len(invalid) for invalid in rejected),
    }
    ctx.step.send_event("announce", durable.NewEvent("pipeline/complete", done))
    return {"rows": done["rows"], "rejected": done["rejected"]}


@durable.function(on=durable.Event("pipeline/complete"))
def summarise_import(ctx: durable.Context) -> dict[str, int]:
    """Store the result of an import and count the countries."""
    ctx.step.atomic("keep", keep_summary, ctx.event)
    return {"countries": ctx.step.run("countries", count_countries)}


def find_chunks(upload_id: int) -> list[Chunk]:
    """Return the ranges of lines that one step processes."""
    count = sum(1 for _ in lines(upload_id))
    return [(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def validate_chunk(upload_id: int, chunk: Chunk) -> list[int]:
    """Return the numbers of the invalid lines in a range."""
    logger.info("validate %d", chunk[0])
    invalid = []
    for number, line in enumerate(islice(lines(upload_id), *chunk), start=chunk[0]):
        try:
            Airport(**line).clean_fields()
        except (TypeError, ValidationError) as error:
            logger.warning("line %d is invalid: %s", number, error)
            invalid.append(number)
    return invalid


def write_chunk(upload_id: int, chunk: Chunk, invalid: list[int]) -> int:
    """Insert or update the airports of the valid lines of a range."""
    logger.info("write %d", chunk[0])
    numbered = enumerate(islice(lines(upload_id), *chunk), start=chunk[0])
    airports = [Airport(**line) for number, line in numbered if number not in invalid]
    columns = [field.name for field in Airport._meta.fields if not field.primary_key]
    Airport.objects.bulk_create(
        airports, update_conflicts=True, unique_fields=["icao"], update_fields=columns
    )
    return len(airports)


def lines(upload_id: int) -> Iterator[dict[str, Any]]:
    """Yield the lines of an uploaded file by column name."""
    with Upload.objects.get(pk=upload_id).file.open("rb") as file:
        yield from csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))


def keep_summary(event: durable.ReceivedEvent) -> None:
    """Store the result of an import."""
    ImportSummary.objects.create(finished_at=event.ts, **event.data)


def count_countries() -> int:
    """Return the number of countries with an airport."""
    return Airport.objects.values("country").distinct().count()
