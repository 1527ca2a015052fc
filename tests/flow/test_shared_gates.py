"""Limits that share a key: each counts for itself, and none makes the others spin."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(30)]


def rest(ctx: durable.Context) -> None:
    ctx.step.sleep("rest", "1h")


def shared(limit: int, key: str) -> durable.Concurrency:
    return durable.Concurrency(limit, key=lambda _: key, scope="account", of="runs")


def test_steps_and_runs_of_one_key_are_counted_apart(durable_kit: Kit) -> None:
    limits = [
        durable.Concurrency(1, key="event.data.tenant", of="steps"),
        durable.Concurrency(3, key="event.data.tenant", of="runs"),
    ]
    function = durable.function(id="flow.apart", concurrency=limits)(rest)
    for _ in range(5):
        function.enqueue({"tenant": "acme"})
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="waiting").count() == 3
    assert Run.objects.filter(status="queued").count() == 2


def test_two_functions_with_crosswise_limits_wait_without_spinning(
    durable_kit: Kit,
) -> None:
    # Each of the last two finds one key full by its own limit, and room at the other.
    wide = [shared(5, "a"), shared(5, "b")]
    first = durable.function(id="flow.wide", concurrency=wide)(rest)
    crosswise = [
        durable.function(id=f"flow.{name}", concurrency=limits)(rest)
        for name, limits in {
            "left": [shared(1, "a"), shared(5, "b")],
            "right": [shared(5, "a"), shared(1, "b")],
        }.items()
    ]
    for _ in range(2):
        first.enqueue()
    durable_kit.run_until_idle()
    for function in crosswise:
        function.enqueue()
    first.enqueue()
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="queued").count() == 2
    for _ in range(3):
        durable_kit.advance("1h")
    assert Run.objects.filter(status="completed").count() == 5
