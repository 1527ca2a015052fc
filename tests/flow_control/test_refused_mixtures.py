"""Calls that would bypass a control are refused."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.control import limits as limit_control
from durable_jobs.models import Limit, Run
from durable_jobs.testing import Kit

pytestmark = [pytest.mark.django_db, pytest.mark.timeout(30)]


def rest(ctx: durable.Context) -> None:
    ctx.step.sleep("rest", "1h")


def test_start_of_an_ordered_function_refuses_a_priority(durable_kit: Kit) -> None:
    function = durable.function(id="flow.strict", ordering="event.data.a")(rest)
    with pytest.raises(durable.ConfigurationError, match=r"flow\.strict.*exceptions"):
        function.using(priority=60)
    assert function.using(key="a").enqueue({"a": 1}).key == "a"


def test_operator_cannot_raise_the_limit_of_an_order(
    durable_kit: Kit,
) -> None:
    function = durable.function(id="flow.strict", ordering="event.data.a")(rest)
    for _ in range(2):
        function.enqueue({"a": 1})
    durable_kit.run_until_idle()
    limit_control.set_limit(Limit.objects.get(control="ordering"), 2)
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="queued").count() == 1


def test_call_with_the_key_of_a_buffered_event_raises(
    durable_kit: Kit,
) -> None:
    @durable.function(
        id="flow.views",
        on=durable.Event("flow/viewed"),
        idempotency="event.data.page",
        batch=durable.Batch(5, "1m"),
    )
    def views(ctx: durable.Context) -> int:
        return len(ctx.events)

    for _ in range(2):
        durable_kit.send("flow/viewed", {"page": 1})
    with pytest.raises(durable.DuplicateKeyError, match="was buffered"):
        views.enqueue({"page": 1})
    durable_kit.advance("1m")
    assert Run.objects.get().result() == 1


def test_kit_becomes_idle_when_a_full_claim_of_backlogs_is_empty(
    durable_kit: Kit,
) -> None:
    function = durable.function(
        id="flow.many", concurrency=durable.Concurrency(1, key="event.data.tenant")
    )(rest)
    for tenant in range(8):
        function.enqueue({"tenant": tenant})
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="waiting").count() == 8
