"""An invalid declaration is refused when its module is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit


def refused(**parameters: Any) -> str:
    """Declare ``shop.pay`` with parameters and return the error message."""

    def pay(ctx):
        pass

    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="shop.pay", **parameters)(pay)
    return str(caught.value)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"retries": -1}, "retries from 0 to 20, got -1"),
        ({"retries": 21}, "retries from 0 to 20, got 21"),
        ({"retries": True}, "retries to be a whole number, got True"),
        ({"retries": 2.0}, "retries to be a whole number, got 2.0"),
        ({"retries": None}, "retries to be a whole number, got None"),
        ({"backoff": "15s"}, "expected durable.Backoff"),
        ({"backoff": lambda: 1}, "(attempt, error)"),
        ({"on": "shop/order.placed"}, "Event or Cron or ModelChange or Webhook in on"),
        ({"on": [durable.Event("a"), 7]}, "in on, got 7"),
        ({"on": [durable.Event(f"e/{i}") for i in range(11)]}, "at most 10 in on"),
        ({"cancel_on": "shop/order.cancelled"}, "CancelOn in cancel_on"),
        ({"cancel_on": durable.Event("a")}, "CancelOn in cancel_on"),
        (
            {"cancel_on": [durable.CancelOn(f"e/{i}") for i in range(6)]},
            "at most 5 in cancel_on, got 6",
        ),
        ({"timeouts": "1h"}, "Timeouts in timeouts, got '1h'"),
        ({"timeouts": {"start": "1h"}}, "Timeouts in timeouts"),
        ({"queue": ""}, "a queue name of 1 to 255 characters"),
        ({"queue": None}, "a queue name of 1 to 255 characters"),
        ({"version": "x" * 256}, "a version of 1 to 255 characters"),
        (
            {"on_failure": "mourn"},
            "under @durable.function, got 'mourn'",
        ),
        ({"on_cancel": lambda: None}, "expected one parameter, the context"),
        ({"on_complete": lambda a, b: None}, "expected one parameter, the context"),
    ],
)
def test_wrong_parameter_is_refused_with_what_was_expected(
    durable_kit: Kit, parameters: dict[str, Any], expected: str
) -> None:
    message = refused(**parameters)
    assert "'shop.pay" in message
    assert expected in message


def test_misspelt_parameter_is_refused(durable_kit: Kit) -> None:
    message = refused(retrys=3)
    assert "'shop.pay'" in message
    assert "retrys is not a parameter" in message
    assert "Did you mean 'retries'?" in message


@pytest.mark.parametrize("wrong", ["", " pay", "x" * 256, "a\nb", 7])
def test_id_is_a_printable_name(durable_kit: Kit, wrong: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="a function id"):
        durable.function(id=wrong)(lambda ctx: None)


def test_body_takes_only_the_context(durable_kit: Kit) -> None:
    with pytest.raises(durable.ConfigurationError, match=r"'a\.b'.*one parameter"):
        durable.function(id="a.b")(lambda: None)
    with pytest.raises(durable.ConfigurationError, match=r"'a\.b'.*one parameter"):
        durable.function(id="a.b")(lambda ctx, other: None)


def test_generator_is_refused_as_a_body(durable_kit: Kit) -> None:
    def walk(ctx):
        yield 1

    async def swim(ctx):
        yield 1

    for body in (walk, swim):
        with pytest.raises(durable.ConfigurationError, match="without yield"):
            durable.function(id="a.b")(body)


@pytest.mark.parametrize("wrong", [7, "pay", None])
def test_decorator_accepts_only_functions(durable_kit: Kit, wrong: Any) -> None:
    with pytest.raises(durable.ConfigurationError, match="Expected a function under"):
        durable.function(id="a.b")(wrong)


def test_function_is_not_decorated_twice(durable_kit: Kit) -> None:
    @durable.function(id="a.b")
    def once(ctx):
        pass

    with pytest.raises(durable.ConfigurationError, match="Expected a function under"):
        durable.function(id="a.c")(once)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "an event without a name": (
        lambda: durable.Event(""),
        "an event name of 1 to 255",
    ),
    "an event with a long name": (
        lambda: durable.Event("x" * 256),
        "an event name of 1 to 255",
    ),
    "a wildcard in the middle": (
        lambda: durable.Event("a*/b"),
        "a wildcard may only end a name",
    ),
    "a wildcard after a letter": (
        lambda: durable.Event("shop*"),
        "a wildcard may only end a name",
    ),
    "a wildcard alone": (
        lambda: durable.Event("*"),
        "a wildcard may only end a name",
    ),
    "a schema that is a type": (
        lambda: durable.Event("a", schema=dict),
        "a pydantic model",
    ),
    "a schema that is a value": (
        lambda: durable.Event("a", schema={"x": int}),
        "a pydantic model",
    ),
    "a minute that is none": (lambda: durable.Cron("61 * * * *"), "five fields"),
    "four fields": (lambda: durable.Cron("* * * *"), "it has 4 fields"),
    "a day that never comes": (lambda: durable.Cron("0 0 31 2 *"), "bad day-of-month"),
    "an unknown zone": (
        lambda: durable.Cron("@weekly", tz="Mars/Olympus"),
        "'Mars/Olympus'",
    ),
    "an unknown catch_up": (
        lambda: durable.Cron("@weekly", catch_up="most"),
        "'skip', 'one' or 'all'",
    ),
    "a model without its app": (
        lambda: durable.ModelChange("Order", created=True),
        "app_label.ModelName",
    ),
    "no kind of change": (
        lambda: durable.ModelChange("shop.Order"),
        "created, updated or deleted",
    ),
    "fields of a creation": (
        lambda: durable.ModelChange("shop.Order", created=True, fields=["total"]),
        "updated=True",
    ),
    "fields in one text": (
        lambda: durable.ModelChange("shop.Order", updated=True, fields="total"),
        "a list of names",
    ),
    "no field at all": (
        lambda: durable.ModelChange("shop.Order", updated=True, fields=[]),
        "names in fields",
    ),
    "cancelling by a wildcard": (
        lambda: durable.CancelOn("shop/*"),
        "without a wildcard",
    ),
    "a match outside of data": (
        lambda: durable.CancelOn("a", match="order_id"),
        "order_id",
    ),
    "a timeout that is no duration": (
        lambda: durable.CancelOn("a", timeout="soon"),
        "timeout is 'soon'",
    ),
    "a timeout below zero": (
        lambda: durable.CancelOn("a", timeout="-1h"),
        "timeout is '-1h'",
    ),
    "no time to start in": (
        lambda: durable.Timeouts(start=0),
        "longer than zero, got 0",
    ),
    "an end that is no duration": (
        lambda: durable.Timeouts(finish="never"),
        "finish is 'never'",
    ),
    "an end below zero": (lambda: durable.Timeouts(finish=-1), "finish is -1"),
    "a delay that is none": (lambda: durable.Backoff.fixed("soon"), "delay is 'soon'"),
    "a factor that shrinks": (
        lambda: durable.Backoff.exponential(factor=0.5),
        "factor is 0.5",
    ),
    "a max below the beginning": (
        lambda: durable.Backoff.exponential("1h", max="1m"),
        "expected no less than its initial delay",
    ),
}


@pytest.mark.parametrize(("declare", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_part_is_refused_with_what_was_expected(
    declare: Callable[[], Any], expected: str
) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        declare()
    assert expected in str(caught.value)
