"""``ctx.step.wait_for_any``: the first alternative wins, the others are discarded."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Q

from durable_jobs import durable
from durable_jobs.models import Wait
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.engine.conftest import Later, Start


@pytest.fixture
def order() -> Order:
    """Return a new order."""
    return Order.objects.create(tenant=Tenant.objects.create(name="Ada"), total=5)


@pytest.fixture
def waiting(order: Order) -> tuple[Any, list[Any]]:
    """Return a function with three alternatives, and the list of what it saw."""
    seen: list[Any] = []

    def any_of_three(ctx):
        name, value = ctx.step.wait_for_any(
            "first",
            {
                "bid": durable.EventWait("shop/bid", match="data.lot"),
                "hammer": durable.SignalWait("hammer"),
                "paid": durable.ModelWait(order, Q(status="paid")),
            },
            timeout="1h",
        )
        seen.append((name, value))
        ctx.step.sleep("nap", "1d")
        return name

    return any_of_three, seen


def dropped() -> bool:
    """Return whether only the wait for the sleep's end is left."""
    return set(Wait.objects.values_list("kind", flat=True)) <= {"sleep"}


def test_event_wins(start: Start, later: Later, durable_kit: Kit, waiting):
    function, seen = waiting
    run = start(function, {"lot": 1})
    durable_kit.send("shop/bid", {"lot": 2})
    durable_kit.send("shop/bid", {"lot": 1, "total": 9})
    later(run)

    assert dropped()
    assert durable.signal("hammer", "too late") is None
    Order.objects.get().save()
    assert later(run, "1d").result() == "bid"
    for name, value in seen:
        assert name == "bid"
        assert isinstance(value, durable.ReceivedEvent)
        assert value.data == {"lot": 1, "total": 9}
    assert len(seen) >= 2


def test_signal_wins(start: Start, later: Later, durable_kit: Kit, waiting):
    function, seen = waiting
    run = start(function, {"lot": 1})
    woken = durable.signal("hammer", {"price": 9})
    assert woken is not None
    assert woken.pk == run.pk
    later(run)

    assert dropped()
    durable_kit.send("shop/bid", {"lot": 1})
    assert later(run, "1d").result() == "hammer"
    assert seen == [("hammer", {"price": 9})] * len(seen)


def test_model_wins(
    start: Start, later: Later, durable_kit: Kit, waiting, order: Order
):
    function, seen = waiting
    run = start(function, {"lot": 1})
    order.status = Order.Status.PAID
    order.save()
    later(run)

    assert dropped()
    assert durable.signal("hammer") is None
    assert later(run, "1d").result() == "paid"
    assert [(name, value.pk, value.status) for name, value in seen] == [
        ("paid", order.pk, "paid")
    ] * len(seen)


def test_alternative_that_is_already_true_wins_without_a_wait(
    start: Start, later: Later, waiting, order: Order
):
    function, seen = waiting
    Order.objects.update(status="paid")
    start(function, {"lot": 1})

    assert seen[0][0] == "paid"
    assert dropped()


def test_timeout_without_a_winner_returns_none(
    start: Start, later: Later, durable_kit: Kit, waiting
):
    function, seen = waiting
    run = later(start(function, {"lot": 1}), "1h")

    assert seen[0] == (None, None)
    assert dropped()
    durable_kit.send("shop/bid", {"lot": 1})
    assert later(run, "1d").result() is None
    assert seen == [(None, None)] * len(seen)


def test_simultaneous_alternatives_have_one_winner(
    start: Start, later: Later, durable_kit: Kit, waiting
):
    function, seen = waiting
    run = start(function, {"lot": 1})
    durable_kit.send("shop/bid", {"lot": 1})
    durable.signal("hammer", 1)
    run = later(run, "1d")

    assert run.result() == "hammer", "a signal is delivered at once, an event routed"
    assert {name for name, _ in seen} == {"hammer"}


def test_events_of_several_names(start: Start, later: Later, durable_kit: Kit):
    def either(ctx):
        name, event = ctx.step.wait_for_any(
            "either",
            {
                "yes": durable.EventWait("shop/accepted"),
                "no": durable.EventWait("shop/refused", if_="async.data.final"),
            },
        )
        return [name, event.data]

    run = start(either)
    durable_kit.send("shop/refused", {"final": False})
    assert later(run).status == "waiting"
    durable_kit.send("shop/refused", {"final": True})

    assert later(run).result() == ["no", {"final": True}]


def test_event_that_matches_two_alternatives_ends_the_first(
    start: Start, later: Later, durable_kit: Kit
):
    def either(ctx):
        waits = {
            "any": durable.EventWait("shop/bid"),
            "large": durable.EventWait("shop/bid", if_="async.data.n > 5"),
        }
        return [ctx.step.wait_for_any("either", waits)[0] for _ in range(2)]

    run = start(either)
    durable_kit.send("shop/bid", {"n": 9})
    run = later(run)
    assert run.status == "waiting", "one event ends one wait"
    durable_kit.send("shop/bid", {"n": 9})

    assert later(run).result() == ["any", "any"]


@pytest.mark.exact("a look back that failed is made again after five seconds")
@pytest.mark.parametrize("first", ["callable", "plain"])
def test_alternatives_since_the_run_all_find_earlier_events(
    start: Start, later: Later, durable_kit: Kit, first
):
    """A callable condition of one alternative does not hide the others."""

    def either(ctx):
        ctx.step.sleep("first something else", "1h")
        waits = {
            "callable": durable.EventWait(
                "shop/bid", if_=lambda event, new: new.data["n"] > 5, since="run"
            ),
            "plain": durable.EventWait("shop/refused", since="run"),
        }
        return ctx.step.wait_for_any("either", waits)[0]

    run = start(either)
    durable_kit.advance(1)
    durable_kit.send("shop/bid", {"n": 9 if first == "callable" else 1})
    if first == "plain":
        durable_kit.send("shop/refused")

    assert later(run, "1h").result() == first


def test_winner_that_the_code_no_longer_has_is_still_the_winner(
    start: Start, later: Later, durable_kit: Kit
):
    names = ["old", "new"]

    def changing(ctx):
        waits = {name: durable.EventWait(f"shop/{name}") for name in names}
        won = ctx.step.wait_for_any("either", waits)[0]
        ctx.step.sleep("nap", "1h")
        return won

    run = start(changing)
    durable_kit.send("shop/old")
    later(run)
    names.remove("old")

    assert later(run, "1h").result() == "old"


@pytest.mark.parametrize(
    ("waits", "expected"),
    [
        ({}, "a dict"),
        ({"x": "shop/bid"}, "EventWait"),
        ({"": durable.SignalWait("s")}, "the name of a wait"),
        ({"a": durable.SignalWait("s"), "b": durable.SignalWait("s")}, "each signal"),
    ],
    ids=["no waits", "no wait", "no name", "one signal twice"],
)
def test_wrong_waits_are_refused(start: Start, waits, expected):
    def mistaken(ctx):
        ctx.step.wait_for_any("first", waits)

    run = start(mistaken)
    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]


def test_invalid_alternative_is_refused_where_it_is_written(order: Order):
    with pytest.raises(durable.ConfigurationError, match="signal name"):
        durable.SignalWait("")
    with pytest.raises(durable.ConfigurationError, match="on_conflict"):
        durable.SignalWait("s", on_conflict="wait")
    with pytest.raises(durable.ConfigurationError, match="a Q"):
        durable.ModelWait(order, {"status": "paid"})
    with pytest.raises(durable.ConfigurationError, match="saved"):
        durable.ModelWait(Order(), Q())
