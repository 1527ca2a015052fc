"""Text in a JSON field is data, whatever tags it contains."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.test import Client
from django.urls import reverse
from pydantic import BaseModel, Field

from durable_jobs import durable, ids
from durable_jobs.admin.typed_json import PayloadText
from durable_jobs.models import Event, Run
from durable_jobs.serialization.typed_json import NOT_FOUND
from durable_jobs.testing import Kit
from project.shop.models import Order
from tests.admin.conftest import make_orders
from tests.admin.test_run_acts import act_url
from tests.hostile import MEGABYTE, PATTERNS, body, in_linear_time

pytestmark = pytest.mark.django_db

SENDS = ("durable_jobs.view_event", "durable_jobs.send_event")
HERE = __name__
MOMENT = datetime(2026, 3, 4, 12, tzinfo=UTC)
Staff = Callable[..., Client]


class Amount(BaseModel):
    """The data of a refund."""

    cents: int = Field(gt=0)


class Colour(enum.Enum):
    """An enum of a project."""

    RED = "red"


@dataclasses.dataclass
class Place:
    """A dataclass of a project."""

    city: str


def tag(kind: str, value: Any) -> dict[str, Any]:
    """Return a tag of the codec."""
    return {"$durable": kind, "value": value}


def row(order: Any, key: Any = None, alias: Any = None) -> dict[str, Any]:
    """Return a reference to an order."""
    return tag("model", ["shop.order", order.pk if key is None else key, alias])


def send(client: Client, data: Any, name: str = "tests/typed") -> Any:
    """Send an event by the admin's form."""
    text = data if isinstance(data, str) else json.dumps(data)
    form = {"name": name, "input": text, "token": str(ids.new_id())}
    address = reverse("admin:durable_jobs_event_send")
    return client.post(f"{address}?as=json&name={name}", form)


def sent(client: Client, value: Any) -> Any:
    """Send a value and return what is stored."""
    answer = send(client, {"value": value})
    assert answer.status_code == 302, answer.content.decode()
    return Event.objects.latest("received_at", "pk").data["value"]


def said(answer: Any) -> str:
    """Return the errors of a form."""
    assert answer.status_code == 422
    found = re.findall(r"<li>(.*?)</li>", answer.content.decode())
    return " ".join(found)


SCALARS = [
    (tag("datetime", "2026-03-04T12:00:00+00:00"), MOMENT),
    (tag("decimal", "1.50"), Decimal("1.50")),
    (tag("uuid", str(UUID(int=7))), UUID(int=7)),
    (tag("bytes", "AAE="), b"\x00\x01"),
    (tag("int", "9" * 30), int("9" * 30)),
    (tag("tuple", [1, tag("decimal", "2")]), (1, Decimal(2))),
    (tag("set", [1]), {1}),
    (tag("dict", [["$durable", 1]]), {"$durable": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "value"), SCALARS, ids=str)
def test_scalars_are_read_by_their_tags(
    durable_kit: Kit, admin_client: Client, typed: Any, value: Any
) -> None:
    found = sent(admin_client, [typed])
    assert found == [value]
    assert type(found[0]) is type(value)


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        (tag("pydantic", [f"{HERE}:Amount", {"cents": -1}, ["cents"]]), {"cents": -1}),
        (tag("dataclass", [f"{HERE}:Place", {"city": 7}]), {"city": 7}),
        (tag("enum", [f"{HERE}:Colour", "RED"]), "red"),
        (tag("flag", [f"{HERE}:Colour", 3]), 3),
        (tag("namedtuple", [f"{HERE}:Place", [1, 2]]), [1, 2]),
    ],
    ids=str,
)
def test_instances_of_classes_are_read_as_data(
    durable_kit: Kit, admin_client: Client, typed: Any, value: Any
) -> None:
    assert sent(admin_client, typed) == value


def test_forged_instance_passes_no_schema(
    durable_kit: Kit, admin_client: Client
) -> None:
    trigger = durable.Event("tests/refund", schema=Amount)
    refund = durable.function(id="tests.refund", on=trigger)(
        lambda ctx: ctx.event.data.cents
    )
    forged = tag("pydantic", [f"{HERE}:Amount", {"cents": -100}, ["cents"]])
    assert "greater than 0" in said(send(admin_client, forged, "tests/refund"))
    start = reverse("admin:durable_jobs_function_start", args=[refund.id])
    form = {"input": json.dumps(forged), "token": str(ids.new_id())}
    assert "greater than 0" in said(admin_client.post(f"{start}?as=json", form))
    run = refund.enqueue({"cents": 1})
    change = {"input": json.dumps(forged), "new": str(ids.new_id())}
    assert "greater than 0" in said(admin_client.post(act_url(run, "edit"), change))
    assert Run.objects.count() == 1
    # The page's own text of a sent model can be changed and sent.
    held = tag("pydantic", [f"{HERE}:Amount", {"cents": 5}, ["cents"]])
    assert send(admin_client, held, "tests/refund").status_code == 302
    assert Event.objects.get().data == {"cents": 5}


def test_reference_needs_the_permission_to_view_the_object(
    durable_kit: Kit, staff: Staff
) -> None:
    [order] = make_orders(1)
    client = staff(*SENDS, "shop.view_order")
    assert sent(client, row(order)) == order
    assert sent(client, [row(order), {"again": row(order, str(order.pk))}]) == [
        order,
        {"again": order},
    ]
    assert Event.objects.count() == 2


def test_deleted_and_hidden_objects_have_the_same_message(
    durable_kit: Kit, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, hidden = make_orders(2)
    own = type(admin.site.get_model_admin(Order))

    def narrowed(self: Any, request: Any) -> QuerySet[Order]:
        return Order.objects.filter(pk=mine.pk)

    monkeypatch.setattr(own, "get_queryset", narrowed)
    with_view = staff(*SENDS, "shop.view_order")
    User.objects.update(username="bob")
    without = staff(*SENDS)
    answers = {
        said(send(with_view, {"value": row(hidden)})),
        said(send(with_view, {"value": row(hidden, 10**6)})),
        said(send(without, {"value": row(mine)})),
        said(send(without, {"value": row(mine, 10**6)})),
        said(send(with_view, {"value": tag("model", ["auth.user", 1, None])})),
        said(send(with_view, {"value": tag("model", ["shop.nothing", 1, None])})),
        said(send(with_view, {"value": tag("model", ["sessions.session", "x", None])})),
    }
    assert answers == {NOT_FOUND}
    assert not Event.objects.exists()
    assert sent(with_view, row(mine)) == mine


def test_object_hidden_by_its_admin_is_not_read(
    durable_kit: Kit, staff: Staff, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, hidden = make_orders(2)
    own = type(admin.site.get_model_admin(Order))

    def may_view(self: Any, request: Any, obj: Any = None) -> bool:
        return obj is None or obj.pk == mine.pk

    monkeypatch.setattr(own, "has_view_permission", may_view)
    client = staff(*SENDS)
    assert said(send(client, {"value": row(hidden)})) == NOT_FOUND
    assert sent(client, row(mine)) == mine


BROKEN = [
    tag("model", None),
    tag("model", "shop.order"),
    tag("model", ["shop.order"]),
    tag("model", ["shop.order", 1, None, 2]),
    {"$durable": "model"},
    tag("model", [7, 1, None]),
    tag("model", [["shop", "order"], 1, None]),
    tag("model", ["nonsense", 1, None]),
    tag("model", ["shop.order", None, None]),
    tag("model", ["shop.order", True, None]),
    tag("model", ["shop.order", [1], None]),
    tag("model", ["shop.order", {"a": 1}, None]),
    tag("model", ["shop.order", "x", None]),
    tag("model", ["shop.order", "1" * 5000, None]),
    tag("model", ["shop.order", 10**30, None]),
    tag("model", ["shop.order", -1, None]),
    tag("model", ["shop.order", tag("uuid", "x"), None]),
    tag("model", ["shop.order", tag("set", [1]), None]),
    tag("model", ["shop.order", tag("model", ["shop.order", 1, None]), None]),
    tag("model", ["shop.order", 1, "nowhere"]),
    tag("model", ["shop.order", 1, 7]),
    tag("model", ["shop.order", 1, {}]),
    tag("model", ["durable_jobs.run", "no uuid", None]),
    tag("model", ["durable_jobs.run", 10**40, None]),
]


@pytest.mark.parametrize("broken", BROKEN, ids=str)
def test_broken_reference_is_an_error_of_the_form(
    durable_kit: Kit, admin_client: Client, broken: Any
) -> None:
    run = durable.function(id="tests.f")(lambda ctx: None).enqueue()
    assert said(send(admin_client, {"value": [broken]})) == NOT_FOUND
    form = {"input": json.dumps({"value": broken}), "token": str(ids.new_id())}
    start = reverse("admin:durable_jobs_function_start", args=["tests.f"])
    assert said(admin_client.post(start, form)) == NOT_FOUND
    change = {"input": json.dumps({"value": broken}), "new": str(ids.new_id())}
    assert said(admin_client.post(act_url(run, "edit"), change)) == NOT_FOUND
    assert not Event.objects.exists()


@pytest.mark.parametrize(
    "broken",
    [
        tag("nothing", 1),
        tag("decimal", "x"),
        tag("datetime", {"a": 1}),
        tag("datetime", ["2026-03-04T12:00:00", "../../etc/passwd", 0]),
        tag("int", "9" * 10_000),
        tag("float", "nan"),
        tag("timedelta", [10**12, 0, 0]),
        tag("set", [[1]]),
        tag("dict", 7),
        tag("pydantic", None),
        tag("pydantic", ["os:path"]),
        tag("pydantic", ["x", 7, []]),
        tag("dataclass", [f"{HERE}:Place", [1]]),
        tag("enum", ["os:nothing", "x"]),
        tag("enum", [f"{HERE}:Place", "city"]),
        tag("enum", [f"{HERE}:Colour", "BLUE"]),
        tag("flag", [1]),
        tag("namedtuple", 1),
        {"$durable": []},
        {"$durable": "int", "value": 1, "more": 2},
    ],
    ids=str,
)
def test_broken_tag_is_an_error_of_the_form(
    durable_kit: Kit, admin_client: Client, broken: Any
) -> None:
    assert said(send(admin_client, {"value": broken}))
    assert not Event.objects.exists()


def test_references_in_one_text_are_limited(
    durable_kit: Kit, admin_client: Client
) -> None:
    [order] = make_orders(1)
    many = [row(order, number) for number in range(101)]
    assert NOT_FOUND in said(send(admin_client, {"value": many}))
    for number in range(2, 102):
        Order.objects.create(pk=10_000 + number, tenant=order.tenant, total=1)
    many = [row(order, 10_000 + number) for number in range(2, 102)]
    assert "at most 100 references" in said(
        send(admin_client, {"value": [row(order), *many]})
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hostile_texts_take_linear_time(
    durable_kit: Kit, admin_client: Client, pattern: str
) -> None:
    def clean(text: str) -> str:
        try:
            return str(PayloadText().clean(text))
        except ValidationError as error:
            return type(error).__name__

    text = body(pattern, 4 * MEGABYTE).decode("latin-1")
    kind = in_linear_time(4 * MEGABYTE, partial(clean, text))
    assert kind == "ValidationError"
    assert send(admin_client, body(pattern, 100_000).decode("latin-1")).status_code in (
        302,
        422,
    )


def test_references_need_the_permission_to_send(durable_kit: Kit, staff: Staff) -> None:
    [order] = make_orders(1)
    client = staff("durable_jobs.view_event", "shop.view_order")
    assert send(client, {"value": row(order)}).status_code == 403
    assert User.objects.exists()
