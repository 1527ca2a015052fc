"""An invalid limit is refused when it is declared, with what was expected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit

KEY = "event.data.k"

WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "a limit of 0": (lambda: durable.Concurrency(0), "of 1 or more, got 0"),
    "a limit below 0": (lambda: durable.Concurrency(-1), "of 1 or more, got -1"),
    "a limit that is a text": (lambda: durable.Concurrency("5"), "got '5'"),
    "a limit that is True": (lambda: durable.Concurrency(True), "got True"),
    "a limit of 2.0": (lambda: durable.Concurrency(2.0), "got 2.0"),
    "no limit": (lambda: durable.Concurrency(None), "got None"),
    "an unknown scope": (
        lambda: durable.Concurrency(1, scope="env"),
        "'function' or 'account', got 'env'",
    ),
    "an account without a key": (
        lambda: durable.Concurrency(1, scope="account"),
        "a key in Concurrency with scope 'account'",
    ),
    "of something else": (
        lambda: durable.Concurrency(1, of="events"),
        "'steps' or 'runs', got 'events'",
    ),
    "a throttle of 0": (lambda: durable.Throttle(0, "1m"), "Throttle limit"),
    "a burst of 0": (lambda: durable.Throttle(1, "1m", burst=0), "Throttle burst"),
    "a rate limit of 0": (lambda: durable.RateLimit(0, "1m"), "RateLimit limit"),
    "no time at all": (lambda: durable.Throttle(1, 0), "longer than zero"),
    "a time below zero": (lambda: durable.RateLimit(1, "-1s"), "RateLimit per"),
    "ten years": (lambda: durable.RateLimit(1, "3650d"), "at most 366 days"),
    "a throttle over ten years": (lambda: durable.Throttle(1, "3650d"), "366 days"),
    "a debounce of ten years": (lambda: durable.Debounce("3650d"), "366 days"),
    "a batch of ten years": (lambda: durable.Batch(2, "3650d"), "366 days"),
    "a time that is none": (lambda: durable.Throttle(1, "soon"), "'soon'"),
    "a time that is True": (lambda: durable.Throttle(1, True), "True"),
    "a debounce of no time": (lambda: durable.Debounce(0), "Debounce period"),
    "a timeout below the period": (
        lambda: durable.Debounce("10s", timeout="5s"),
        "at least its period, got '5s' and '10s'",
    ),
    "collect that is no bool": (
        lambda: durable.Debounce("10s", collect="yes"),
        "True or False, got 'yes'",
    ),
    "a batch of none": (lambda: durable.Batch(0, "1s"), "from 1 to 1000, got 0"),
    "too large a batch": (lambda: durable.Batch(1001, "1s"), "from 1 to 1000"),
    "a batch without a timeout": (lambda: durable.Batch(2, None), "Batch timeout"),
    "an unknown mode": (
        lambda: durable.Singleton(mode="replace"),
        "'skip' or 'cancel' or 'queue', got 'replace'",
    ),
}


@pytest.mark.parametrize(("declare", "expected"), WRONG.values(), ids=WRONG)
def test_wrong_limit_is_refused(declare: Callable[[], Any], expected: str) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        declare()
    assert expected in str(caught.value)


DECLARED: dict[str, tuple[dict[str, Any], str]] = {
    "concurrency that is a text": (
        {"concurrency": "5"},
        "durable.Concurrency in concurrency, got '5'",
    ),
    "concurrency that is True": ({"concurrency": True}, "in concurrency, got True"),
    "a concurrency of 0": ({"concurrency": 0}, "of 1 or more, got 0"),
    "three limits": (
        {"concurrency": [durable.Concurrency(n, key=KEY) for n in (1, 2, 3)]},
        "at most 2 in concurrency, got 3",
    ),
    "two limits that are one": (
        {"concurrency": [durable.Concurrency(1), durable.Concurrency(2)]},
        "to differ in their key, scope or of",
    ),
    "a throttle that is none": ({"throttle": 5}, "durable.Throttle in throttle"),
    "a rate limit that is none": (
        {"rate_limit": durable.Throttle(1, "1s")},
        "durable.RateLimit in rate_limit",
    ),
    "a debounce that is none": ({"debounce": "5s"}, "durable.Debounce in debounce"),
    "a batch that is none": ({"batch": 10}, "durable.Batch in batch"),
    "a singleton that is none": ({"singleton": True}, "durable.Singleton in singleton"),
    "batch with debounce": (
        {"batch": durable.Batch(2, "1s"), "debounce": durable.Debounce("1s")},
        "batch or debounce, not both",
    ),
    "priority with ordering": (
        {"priority": KEY, "ordering": KEY},
        "priority or ordering, not both",
    ),
    "singleton with ordering": (
        {"singleton": durable.Singleton(), "ordering": KEY},
        "singleton or ordering, not both",
    ),
    "CEL that does not compile": (
        {"concurrency": durable.Concurrency(1, key="event.data.")},
        "Concurrency key",
    ),
    "an unknown name in CEL": ({"ordering": "evnt.data.k"}, "evnt"),
    "a callable of two": ({"priority": lambda a, b: 1}, "priority"),
    "a key that is a number": ({"idempotency": 7}, "idempotency"),
    "a batch condition that does not compile": (
        {"batch": durable.Batch(2, "1s", if_="event.data.k ==")},
        "Batch if_",
    ),
}


@pytest.mark.parametrize(("declared", "expected"), DECLARED.values(), ids=DECLARED)
def test_wrong_declaration_is_refused_and_names_the_function(
    durable_kit: Kit, declared: dict[str, Any], expected: str
) -> None:
    with pytest.raises(durable.ConfigurationError) as caught:
        durable.function(id="shop.pay", **declared)(lambda ctx: None)
    assert "'shop.pay'" in str(caught.value)
    assert expected in str(caught.value)


def test_refused_limit_is_not_declared(durable_kit: Kit) -> None:
    with pytest.raises(durable.ConfigurationError):
        durable.function(id="shop.pay", concurrency=0)(lambda ctx: None)
    durable.function(id="shop.pay", concurrency=1)(lambda ctx: None)


def test_rate_to_redrive_at_is_a_number(durable_kit: Kit, db: None) -> None:
    from durable_jobs.models import Run

    rate = durable.Throttle(lambda key: 1, "1m")
    with pytest.raises(durable.ConfigurationError, match="a number as the limit"):
        Run.objects.all().redrive(rate=rate)
