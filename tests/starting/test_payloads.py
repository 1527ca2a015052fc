"""I11: data that cannot be stored is refused on input, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pytest_django import Settings

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant


def nested(depth: int) -> dict[str, Any]:
    """Return a dict in a dict in a dict."""
    data: dict[str, Any] = {}
    for _ in range(depth):
        data = {"inside": data}
    return data


def endless() -> dict[str, Any]:
    """Return a dict that contains itself."""
    data: dict[str, Any] = {}
    data["self"] = data
    return data


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: {"x": [1, float("nan")]}, "x[1]"),
    "infinity": (lambda: {"x": float("inf")}, "a finite number"),
    "a NUL": (lambda: {"x": {"y": "a\x00b"}}, "NUL"),
    "a NUL in a key": (lambda: {"a\x00b": 1}, "NUL"),
    "a lone surrogate": (lambda: {"x": "a\ud800b"}, "lone surrogate"),
    "too deep": (lambda: nested(200), "deeper than 100"),
    "in itself": (endless, "deeper than 100"),
    "an object": (lambda: {"x": object()}, "object"),
    "a function": (lambda: {"x": len}, "builtin_function"),
    "a model that is not saved": (lambda: {"x": Tenant(name="new")}, "saved"),
    "a huge integer": (lambda: {"x": 10**5000}, "4,000 digits"),
    "a list": (lambda: [1, 2], "to be a dict, got list"),
    "a text": (lambda: "data", "to be a dict, got str"),
}


@pytest.mark.parametrize(("make", "expected"), BAD.values(), ids=BAD)
def test_data_that_cannot_be_stored_is_refused(
    durable_kit: Kit, make: Callable[[], Any], expected: str
) -> None:
    look = durable.function(id="shop.look", on=durable.Event("a/b"))(lambda ctx: None)
    data = make()
    for start, name in {
        lambda: durable.send("a/b", data): "'a/b'",
        lambda: look.enqueue(data): "'shop.look'",
        lambda: look.using(key="k").enqueue(data): "'shop.look'",
    }.items():
        with pytest.raises(durable.PayloadError) as caught:
            start()
        assert name in str(caught.value)
        assert expected in str(caught.value)
    assert not Event.objects.exists()
    assert not Run.objects.exists()


def test_bad_event_refuses_all_that_were_sent_with_it(durable_kit: Kit) -> None:
    good = durable.NewEvent("a/b", {"n": 1})
    with pytest.raises(durable.PayloadError):
        durable_kit.send_many([good, durable.NewEvent("a/b", {"n": {1: object()}})])
    assert not Event.objects.exists()


def test_user_of_an_event_is_data_too(durable_kit: Kit) -> None:
    durable.function(id="look", on=durable.Event("a/b"))(lambda ctx: ctx.event.user)
    with pytest.raises(durable.PayloadError, match="the user of event 'a/b'"):
        durable_kit.send("a/b", user=object())
    since = datetime(2026, 1, 1, tzinfo=UTC)
    durable_kit.send("a/b", user={"since": since, "id": UUID(int=7)})
    durable_kit.run_until_idle()
    assert Run.objects.get().result() == {"since": since, "id": UUID(int=7)}
    assert Event.objects.get().user == {"since": since, "id": UUID(int=7)}


def test_user_may_be_a_saved_instance(durable_kit: Kit) -> None:
    @durable.function(id="look", on=durable.Event("a/b"), on_complete=lambda ctx: None)
    def look(ctx):
        return ctx.event.user.name

    tenant = Tenant.objects.create(name="Ada")
    durable_kit.send("a/b", user=tenant)
    Tenant.objects.update(name="Ada Lovelace")
    durable_kit.run_until_idle()
    assert Run.objects.get(function="look").result() == "Ada Lovelace"


def test_event_has_a_largest_size(durable_kit: Kit) -> None:
    look = durable.function(id="look", on=durable.Event("a/b"))(
        lambda ctx: len(ctx.event.data["x"])
    )
    room = 2**19 - len('{"x":""}')
    durable_kit.send("a/b", {"x": "y" * room})
    look.enqueue({"x": "é" * (room // 2)})
    durable_kit.run_until_idle()
    assert [run.result() for run in Run.objects.order_by("pk")] == [room, room // 2]
    for start in (
        lambda: durable.send("a/b", {"x": "y" * (room + 1)}),
        lambda: look.enqueue({"x": "y" * (room + 1)}),
        # Each character is two bytes in storage.
        lambda: durable.send("a/b", {"x": "é" * (room // 2 + 1)}),
        lambda: durable.send("a/b", user="y" * (2**19 + 1)),
    ):
        with pytest.raises(durable.PayloadError) as caught:
            start()
        assert "MAX_EVENT_BYTES" in str(caught.value)
        assert "524288" in str(caught.value)
    assert Run.objects.count() == 2


def test_largest_size_is_a_setting(durable_kit: Kit, settings: Settings) -> None:
    settings.DURABLE_JOBS = {"MAX_EVENT_BYTES": 10}
    durable_kit.send("a/b", {"x": "1234"[:2]})
    with pytest.raises(durable.PayloadError, match="expected at most 10"):
        durable_kit.send("a/b", {"x": "12345"})


def test_request_has_a_largest_number_of_events(
    durable_kit: Kit, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"MAX_EVENTS": 3}
    events = [durable.NewEvent("a/b", {"n": n}) for n in range(4)]
    with pytest.raises(durable.LimitExceeded) as caught:
        durable_kit.send_many(events)
    assert "got 4" in str(caught.value)
    assert "MAX_EVENTS" in str(caught.value)
    assert not Event.objects.exists()
    assert len(durable_kit.send_many(events[:3])) == 3


def test_request_may_have_five_thousand_events(durable_kit: Kit) -> None:
    events = [durable.NewEvent("a/b", {"n": n}) for n in range(5000)]
    assert len(set(durable_kit.send_many(events))) == 5000
    with pytest.raises(durable.LimitExceeded, match="at most 5000"):
        durable_kit.send_many([*events, durable.NewEvent("a/b")])


def test_rich_values_keep_their_types(durable_kit: Kit) -> None:
    data = {
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "naive": datetime(2026, 1, 1),  # noqa: DTZ001  # a value, not a time of ours
        "day": date(2026, 1, 1),
        "long": timedelta(days=3),
        "price": Decimal("1.10"),
        "id": UUID(int=7),
        "raw": b"\x00\xff",
        "pair": (1, "two"),
        "large": 10**30,
        "float": 1e20,
        "zero": -0.0,
        "nothing": None,
    }

    @durable.function(id="look", on=durable.Event("a/b"))
    def look(ctx):
        assert ctx.event.data == data
        assert str(ctx.event.data["zero"]) == "-0.0"
        assert type(ctx.event.data["float"]) is float
        return ctx.event.data

    durable_kit.send("a/b", data)
    look.enqueue(data)
    durable_kit.run_until_idle()
    for run in Run.objects.all():
        assert run.result() == data
        assert run.data == data


def test_instances_are_loaded_anew(durable_kit: Kit) -> None:
    @durable.function(id="look")
    def look(ctx):
        return [ctx.event.data["order"].status, ctx.event.data["tenant"].name]

    tenant = Tenant.objects.create(name="Ada")
    order = Order.objects.create(tenant=tenant, total=5)
    run = look.enqueue({"order": order, "tenant": tenant})
    Order.objects.update(status="paid")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == ["paid", "Ada"]


def test_deleted_instance_fails_only_its_run(durable_kit: Kit) -> None:
    @durable.function(id="look", retries=0)
    def look(ctx):
        return ctx.event.data["tenant"].name

    gone, there = (Tenant.objects.create(name=name) for name in ("gone", "there"))
    runs = [look.enqueue({"tenant": tenant}) for tenant in (gone, there)]
    gone.delete()
    durable_kit.run_until_idle()
    for run in runs:
        run.refresh_from_db()
    assert [run.status for run in runs] == ["failed", "completed"]
