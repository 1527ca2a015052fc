"""Every replay sees the value and type of the first run."""

from __future__ import annotations

import dataclasses
import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel

from durable_jobs import durable
from project.shop.models import Order, Tenant
from tests.engine.conftest import Configure, Later, Start


@dataclasses.dataclass(frozen=True)
class Money:
    """A dataclass of the project."""

    amount: Decimal
    currency: str = "EUR"


class Parcel(BaseModel):
    """A pydantic model of the project."""

    weight: Decimal
    labels: set[str]


class Colour(enum.Enum):
    """An enum of the project."""

    RED = "red"


class Size(enum.IntEnum):
    """An enum that is also an integer."""

    LARGE = 3


VALUES: dict[str, Any] = {
    "none": None,
    "true": True,
    "zero": 0,
    "text": "naïve ☃ 😀 \\ \" '",
    "empty text": "",
    "a large float": 1e20,
    "negative zero": -0.0,
    "a small float": 5e-324,
    "a whole float": 3.0,
    "an integer of 30 digits": 123456789012345678901234567890,
    "a negative integer of 30 digits": -123456789012345678901234567890,
    "an empty list": [],
    "lists": [1, [2, [3]]],
    "a tuple": (1, (2, "three"), []),
    "a set": {1, 2, 3},
    "a frozen set": frozenset({"a", "b"}),
    "a decimal": Decimal("10.100"),
    "a datetime": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    "a datetime in a zone": datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("Europe/Paris")),
    "a date": date(2026, 2, 28),
    "a time": time(23, 59, 59, 1),
    "a timedelta": timedelta(days=-1, microseconds=7),
    "a uuid": uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    "bytes": b"\x00\xff",
    "a dataclass": Money(Decimal("1.50")),
    "a pydantic model": Parcel(weight=Decimal("2.5"), labels={"fragile"}),
    "an enum": Colour.RED,
    "an integer enum": Size.LARGE,
    "keys that are no texts": {1: "one", (2, 3): "a pair", None: "nothing"},
    "all of it": {"b": [Money(Decimal(1)), (1, {2}), {"c": b"x"}], "a": -0.0},
}


@pytest.mark.parametrize("case", VALUES)
def test_result_is_equal_in_the_first_run_and_in_replay(
    start: Start, later: Later, case
):
    value = VALUES[case]
    seen: list[Any] = []

    def giving(ctx):
        seen.append(ctx.step.run("give", lambda: value))
        ctx.step.sleep("nap", 1)
        return seen[-1]

    run = later(start(giving), 1)

    assert len(seen) >= 2
    for one in [*seen, run.result()]:
        assert one == value
        assert type(one) is type(value)
    for one in seen:
        assert repr(one) == repr(value) or isinstance(value, set | frozenset)


def test_dict_keeps_the_order_of_its_keys_from_step_to_step(start: Start, later: Later):
    keys = ["zebra", "apple", "mango", "1", "10", "2"]
    seen = []

    def giving(ctx):
        seen.append(list(ctx.step.run("give", lambda: dict.fromkeys(keys, 0))))
        ctx.step.sleep("nap", 1)

    later(start(giving), 1)

    assert len(seen) >= 2
    assert seen == [keys] * len(seen)


def test_model_instance_is_loaded_as_the_row_is_now(start: Start, later: Later):
    order = Order.objects.create(tenant=Tenant.objects.create(name="Ada"), total=5)
    seen = []

    def giving(ctx):
        found = ctx.step.run("find", lambda: Order.objects.get(pk=order.pk))
        seen.append((type(found), found.pk, found.note))
        ctx.step.run("write", lambda: Order.objects.update(note="packed"))
        ctx.step.sleep("nap", 1)

    later(start(giving), 1)

    assert {(kind, key) for kind, key, _ in seen} == {(Order, order.pk)}
    assert [note for *_, note in seen][:2] == ["", "packed"]


def test_deleted_instance_raises_its_models_does_not_exist(start: Start, later: Later):
    order = Order.objects.create(tenant=Tenant.objects.create(name="Ada"), total=5)

    def giving(ctx):
        try:
            ctx.step.run("find", lambda: Order.objects.get(pk=order.pk))
        except Order.DoesNotExist:
            return "gone"
        ctx.step.sleep("nap", 1)

    run = start(giving)
    Order.objects.all().delete()
    assert later(run, 1).result() == "gone"


def test_later_changes_of_a_result_by_its_body_do_not_show(start: Start):
    kept: list[Any] = []

    def body():
        kept.append({"items": [1]})
        return kept[-1]

    def giving(ctx):
        result = ctx.step.run("give", body)
        kept[0]["items"].append(2)
        return result

    assert start(giving).result() == {"items": [1]}


def endless() -> list[Any]:
    """Return a list that contains itself."""
    items: list[Any] = []
    items.append(items)
    return items


def deep() -> list[Any]:
    """Return a list nested deeper than the limit."""
    items: list[Any] = []
    for _ in range(200):
        items = [items]
    return items


REFUSED: dict[str, Any] = {
    "an object": object(),
    "a function": print,
    "an error": ValueError("no"),
    "not a number": float("nan"),
    "infinity": [float("inf")],
    "a text with NUL": {"text": "a\x00b"},
    "a lone surrogate": "\ud800",
    "a list that holds itself": endless(),
    "a list too deep": deep(),
    "an instance that is not saved": Tenant(name="nobody"),
    "a generator": (n for n in range(3)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_result_that_cannot_be_stored_is_refused_and_not_retried(
    start: Start, later: Later, case
):
    calls, seen = [], []

    def body():
        calls.append(1)
        return REFUSED[case]

    def giving(ctx):
        try:
            ctx.step.run("give", body)
        except durable.StepFailed as error:
            seen.append((error.error_type, error.message))
            ctx.step.sleep("nap", 1)
            raise

    run = later(start(giving), 1)

    assert run.error["type"] == "PayloadError"
    assert "'give'" in run.error["message"]
    assert len(calls) == 1
    assert len(seen) >= 2
    assert len(set(seen)) == 1


def test_return_value_that_cannot_be_stored_fails_the_run(start: Start):
    entries = []

    def returning(ctx):
        entries.append(1)
        return {"at": [object()]}

    run = start(returning)

    assert run.error["type"] == "PayloadError"
    assert "output" in run.error["message"]
    assert str(run.pk) in run.error["message"]
    assert len(entries) == 1


# Limits


def test_result_past_the_limit_is_refused(start: Start, configure: Configure):
    configure(MAX_STEP_BYTES=100)
    calls = []

    def giving(ctx):
        ctx.step.run("small", lambda: "x" * 90)
        ctx.step.run("large", lambda: calls.append(1) or "é" * 60)

    run = start(giving)

    assert run.error["type"] in {"PayloadError", "LimitExceeded"}
    for part in [str(run.pk), "'large'", "122", "100", "MAX_STEP_BYTES"]:
        assert part in run.error["message"]
    assert len(calls) == 1


def test_run_past_its_bytes_is_refused(start: Start, configure: Configure):
    configure(MAX_RUN_BYTES=1000)

    def hoarding(ctx):
        for number in range(20):
            ctx.step.run(f"step {number}", lambda: "é" * 50)

    run = start(hoarding)

    assert run.error["type"] == "LimitExceeded"
    for part in [str(run.pk), "'step 9'", "1000", "MAX_RUN_BYTES"]:
        assert part in run.error["message"]
    assert run.steps.filter(status="completed").count() == 9


def test_run_past_its_steps_is_refused_before_the_body_is_called(
    start: Start, configure: Configure
):
    configure(MAX_STEPS=3)
    calls: list[int] = []

    def counting(ctx):
        for number in range(10):
            ctx.step.run(f"step {number}", calls.append, number)

    run = start(counting)

    assert run.error["type"] == "LimitExceeded"
    for part in [str(run.pk), "'step 3'", "3", "MAX_STEPS"]:
        assert part in run.error["message"]
    assert calls == [0, 1, 2]


@pytest.mark.parametrize("kind", ["sleep", "wait", "start", "map", "group"])
def test_steps_of_every_kind_count(start: Start, configure: Configure, kind):
    configure(MAX_STEPS=1)

    def full(ctx):
        ctx.step.run("first", lambda: 1)
        if kind == "sleep":
            ctx.step.sleep("one more", "1h")
        elif kind == "wait":
            ctx.step.wait_for_event("one more", "some/event", timeout="1h")
        elif kind == "start":
            ctx.step.start("one more", "tests.full")
        elif kind == "map":
            ctx.step.map("one more", str, [1])
        else:
            with ctx.step.group("one more"):
                pass

    run = start(full)

    assert run.error["type"] == "LimitExceeded"
    assert "'one more'" in run.error["message"]
