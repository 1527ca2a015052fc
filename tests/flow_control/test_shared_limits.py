"""Limits that share a key: each counts separately, and none makes others spin."""

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


@pytest.mark.parametrize("queues", [("default", "default"), ("left", "right")])
def test_two_functions_with_crosswise_limits_wait_without_spinning(
    durable_kit: Kit, queues: tuple[str, str]
) -> None:
    # Each of the last two finds one key full by its own limit, and a slot at the other.
    wide = [shared(5, "a"), shared(5, "b")]
    first = durable.function(id="flow.wide", concurrency=wide)(rest)
    crosswise = [
        durable.function(id=f"flow.{name}", concurrency=limits, queue=queue)(rest)
        for name, limits, queue in (
            ("left", [shared(1, "a"), shared(5, "b")], queues[0]),
            ("right", [shared(5, "a"), shared(1, "b")], queues[1]),
        )
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


def test_slot_that_one_function_may_not_use_goes_to_the_other(
    durable_kit: Kit,
) -> None:
    wide = durable.function(id="flow.three", concurrency=shared(3, "a"))(rest)
    narrow = durable.function(id="flow.one", concurrency=shared(1, "a"))(rest)
    first = wide.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("30m")
    for function in (wide, wide, narrow, wide):
        function.enqueue()
        durable_kit.run_until_idle()
    durable_kit.advance("30m")
    first.refresh_from_db()
    assert first.status == "completed"
    assert Run.objects.filter(function="flow.three", status="waiting").count() == 3
    assert Run.objects.get(function="flow.one").status == "queued"
    for _ in range(3):
        durable_kit.advance("1h")
    assert not Run.objects.live().exists()
