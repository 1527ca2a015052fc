"""The shop's durable functions: orders, complaints about them, files of airports."""

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
    """Mark the order of a fulfilment that was cancelled."""
    order_id = ctx.event.data["event"]["data"]["order_id"]
    ctx.step.atomic("cancel", move, order_id, Order.Status.CANCELLED)


@durable.function(
    on=durable.Event("shop/checkout.completed", if_="event.data.total > 0"),
    cancel_on=durable.CancelOn("shop/checkout.revoked", match="data.order_id"),
    on_cancel=give_up,
)
def fulfil_order(ctx: durable.Context) -> dict[str, Any]:
    """Reserve, wait up to three days for the money, pack, and ship."""
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
    """What a person says of a refund."""

    amount: Decimal = Field(gt=0, max_digits=12, decimal_places=2)
    reason: Literal["broken", "late", "unwanted"] = Field(title="What was wrong")
    tell: bool = Field(True, title="Tell the tenant")


@durable.function(admin_action=Order, input=Refund, retries=3)
def refund_order(ctx: durable.Context) -> dict[str, Any]:
    """Give money back for an order that somebody of the staff has chosen."""
    asked: Refund = ctx.event.data
    ctx.step.atomic("note", note_refund, ctx.instance.pk, asked.amount, asked.reason)
    if asked.tell:
        ctx.step.send_event(
            "tell", durable.NewEvent("shop/refunded", {"order_id": ctx.instance.pk})
        )
    return {"refunded": asked.amount}


def note_refund(order_id: int, amount: Decimal, reason: str) -> None:
    """Write on an order what was given back."""
    note = f"{amount} back: {reason}"
    Order.objects.filter(pk=order_id).update(note=note, status=Order.Status.CANCELLED)


def move(order_id: int, status: str) -> None:
    """Give an order its next status."""
    Order.objects.filter(pk=order_id).update(status=status)


# Complaints

#: What is given back without asking anybody.
GOODWILL = Decimal(20)


@durable.function(on=durable.Event("shop/complaint.received"))
def settle_complaint(ctx: durable.Context) -> dict[str, Any]:
    """Give back what a customer asks for; above a little, as much as a manager says."""
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
    """Write something on an order."""
    Order.objects.filter(pk=order_id).update(note=text[:200])


# Airports

CHUNK = 2000

Chunk = tuple[int, int]


@durable.function(on=durable.Event("file/uploaded"), retries=2)
def import_airports(ctx: durable.Context) -> dict[str, int]:
    """Import an uploaded file of airports: every row once, whatever dies meanwhile."""
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
    for chunk, refused in zip(chunks, rejected, strict=True):
        name = f"write {chunk[0]}"
        written += ctx.step.atomic(name, write_chunk, upload_id, chunk, refused)
    done = {
        "upload_id": upload_id,
        "run_id": ctx.run_id,
        "rows": written,
        "rejected": sum(len(refused) for refused in rejected),
    }
    ctx.step.send_event("announce", durable.NewEvent("pipeline/complete", done))
    return {"rows": done["rows"], "rejected": done["rejected"]}


@durable.function(on=durable.Event("pipeline/complete"))
def summarise_import(ctx: durable.Context) -> dict[str, int]:
    """Keep what an import did, and count the countries."""
    ctx.step.atomic("keep", keep_summary, ctx.event)
    return {"countries": ctx.step.run("countries", count_countries)}


def find_chunks(upload_id: int) -> list[Chunk]:
    """Return the ranges of lines to be worked on one at a time."""
    count = sum(1 for _ in lines(upload_id))
    return [(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def validate_chunk(upload_id: int, chunk: Chunk) -> list[int]:
    """Return the lines in a range that cannot be airports."""
    logger.info("validate %d", chunk[0])
    refused = []
    for number, line in enumerate(islice(lines(upload_id), *chunk), start=chunk[0]):
        try:
            Airport(**line).clean_fields()
        except (TypeError, ValidationError) as error:
            logger.warning("line %d is refused: %s", number, error)
            refused.append(number)
    return refused


def write_chunk(upload_id: int, chunk: Chunk, refused: list[int]) -> int:
    """Write the good lines of a range, over what an earlier file said of them."""
    logger.info("write %d", chunk[0])
    numbered = enumerate(islice(lines(upload_id), *chunk), start=chunk[0])
    airports = [Airport(**line) for number, line in numbered if number not in refused]
    columns = [field.name for field in Airport._meta.fields if not field.primary_key]
    Airport.objects.bulk_create(
        airports, update_conflicts=True, unique_fields=["icao"], update_fields=columns
    )
    return len(airports)


def lines(upload_id: int) -> Iterator[dict[str, Any]]:
    """Read an uploaded file line by line."""
    with Upload.objects.get(pk=upload_id).file.open("rb") as file:
        yield from csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))


def keep_summary(event: durable.ReceivedEvent) -> None:
    """Write down what an import did."""
    ImportSummary.objects.create(finished_at=event.ts, **event.data)


def count_countries() -> int:
    """Return how many countries have an airport."""
    return Airport.objects.values("country").distinct().count()
