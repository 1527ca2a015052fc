"""``using(key=…)``: the same key and data return the same run."""

from __future__ import annotations

import pytest
from django.db import transaction
from pytest_django import Settings

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit


@pytest.fixture
def charge(durable_kit: Kit) -> durable.Function:
    """Declare a function that sleeps for as long as its data says."""

    @durable.function(id="charge")
    def charge(ctx):
        ctx.step.sleep("a while", ctx.event.data.get("sleep", 0))
        if ctx.event.data.get("fail"):
            raise durable.NonRetriableError("no")
        return ctx.event.data

    return charge


def test_same_key_and_data_return_the_same_run(
    durable_kit: Kit, charge: durable.Function
) -> None:
    first = charge.using(key="order-7").enqueue({"amount": 5})
    assert charge.using(key="order-7").enqueue({"amount": 5}) == first
    durable_kit.run_until_idle()
    again = charge.using(key="order-7").enqueue({"amount": 5})
    assert again == first
    assert again.result() == {"amount": 5}
    assert again.key == "order-7"
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [1, {"x": 1, "y": 2}]}, {"b": [1, {"y": 2, "x": 1}], "a": 1}),
        (None, {}),
        ({"a": 1}, {"a": 1.0}),
    ],
    ids=["another order", "nothing", "equal numbers"],
)
def test_equal_data_is_the_same_data(
    charge: durable.Function, one: durable.NewEvent, other: durable.NewEvent
) -> None:
    first = charge.using(key="order-7").enqueue(one)
    again = charge.using(key="order-7").enqueue(other)
    assert again == first


@pytest.mark.parametrize(
    "other", [{"amount": 6}, {"amount": "5"}, {}, {"amount": True}]
)
def test_same_key_with_other_data_is_refused(
    durable_kit: Kit, charge: durable.Function, other: dict[str, object]
) -> None:
    first = charge.using(key="order-7").enqueue({"amount": 1})
    for _ in range(2):
        with pytest.raises(durable.DuplicateKeyError) as caught:
            charge.using(key="order-7").enqueue(other)
        message = str(caught.value)
        assert "'order-7'" in message
        assert "'charge'" in message
        assert str(first.pk) in message
        durable_kit.run_until_idle()
    assert Run.objects.count() == 1


def test_keys_belong_to_their_function(
    durable_kit: Kit, charge: durable.Function
) -> None:
    other = durable.function(id="other")(lambda ctx: None)
    first = charge.using(key="order-7").enqueue({"amount": 5})
    second = other.using(key="order-7").enqueue({"amount": 6})
    assert first != second


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
def test_key_lasts_24_hours_whatever_the_end_of_the_run(
    durable_kit: Kit, charge: durable.Function, end: str
) -> None:
    data = {"fail": end == "failed", "sleep": "1h"}
    first = charge.using(key="order-7").enqueue(data)
    if end == "cancelled":
        first.cancel()
    durable_kit.advance("23h59m59s")
    again = charge.using(key="order-7").enqueue(data)
    assert again == first
    assert again.status == end
    with pytest.raises(durable.DuplicateKeyError):
        charge.using(key="order-7").enqueue({})
    durable_kit.advance("1s")
    assert charge.using(key="order-7").enqueue(data) != first


def test_key_lasts_as_long_as_its_run(
    durable_kit: Kit, charge: durable.Function
) -> None:
    first = charge.using(key="order-7").enqueue({"sleep": "10d"})
    durable_kit.advance("9d")
    assert charge.using(key="order-7").enqueue({"sleep": "10d"}) == first
    with pytest.raises(durable.DuplicateKeyError):
        charge.using(key="order-7").enqueue({"sleep": "1d"})
    durable_kit.advance("1d")
    assert charge.using(key="order-7").enqueue({"sleep": "1d"}) != first


def test_key_may_be_taken_by_other_data_after_its_time(
    durable_kit: Kit, charge: durable.Function
) -> None:
    charge.using(key="order-7").enqueue({"amount": 5})
    durable_kit.advance("24h")
    second = charge.using(key="order-7").enqueue({"amount": 6})
    durable_kit.run_until_idle()
    assert charge.using(key="order-7").enqueue({"amount": 6}) == second


def test_run_with_a_key_outlives_a_short_retention(
    durable_kit: Kit, charge: durable.Function, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"RETENTION": {"completed": "1h"}}
    first = charge.using(key="order-7").enqueue({"amount": 5})
    plain = charge.enqueue({"amount": 5})
    durable_kit.advance("5h")
    assert not Run.objects.filter(pk=plain.pk).exists()
    assert charge.using(key="order-7").enqueue({"amount": 5}) == first
    durable_kit.advance("20h")
    assert not Run.objects.exists()
    assert charge.using(key="order-7").enqueue({"amount": 5}) != first


def test_rolled_back_key_is_free(durable_kit: Kit, charge: durable.Function) -> None:
    class Regret(Exception):
        pass

    with pytest.raises(Regret), transaction.atomic():  # noqa: PT012  # the start is the point
        charge.using(key="order-7").enqueue({"amount": 5})
        raise Regret
    charge.using(key="order-7").enqueue({"amount": 6})
    assert Run.objects.get().data == {"amount": 6}


@pytest.mark.parametrize("wrong", ["", "x" * 256, 7, "a\nb"])
def test_key_is_a_printable_name(charge: durable.Function, wrong: str) -> None:
    with pytest.raises(durable.ConfigurationError, match="a key of"):
        charge.using(key=wrong)


def test_options_do_not_stick_to_the_function(charge: durable.Function) -> None:
    charge.using(key="order-7").enqueue({"amount": 5})
    assert charge.enqueue({"amount": 5}) != charge.enqueue({"amount": 5})
