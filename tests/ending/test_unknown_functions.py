"""A run of a function that a worker does not know waits for workers that do."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.definitions.registry import registry
from durable_jobs.engine import attempt
from durable_jobs.models import Run
from durable_jobs.store import leases
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


def deployed(calls: list[str], **options: Any) -> durable.Function:
    """Declare the function, as code that has it does."""

    @durable.function(
        id="shop.new", on_complete=lambda ctx: calls.append("told"), **options
    )
    def new(ctx):
        ctx.step.run("one", lambda: calls.append("one"))
        ctx.step.sleep("night", "1h")
        ctx.step.run("two", lambda: calls.append("two"))
        return "done"

    return new


def started(calls: list[str], **options: Any) -> Run:
    """Start a run in a process of the new release, which executes nothing."""
    with Kit():
        return deployed(calls, **options).enqueue()


LIMITS = [
    {},
    {"concurrency": durable.Concurrency(1)},
    {"throttle": durable.Throttle(1, "1m")},
]


@pytest.mark.parametrize("options", LIMITS, ids=str)
def test_run_of_an_unknown_function_stays_queued_and_uncounted(options) -> None:
    run = started([], **options)
    with Kit() as kit:
        kit.run_until_idle()
        kit.advance("2d")
    run.refresh_from_db()
    assert (run.status, run.reason) == ("queued", "")
    assert (run.claim_count, run.crash_count, run.lease_token) == (0, 0, None)
    assert run.started_at is None


@pytest.mark.parametrize("options", LIMITS, ids=str)
def test_run_continues_in_a_worker_that_has_the_function(options) -> None:
    calls: list[str] = []
    run = started(calls, **options)
    with Kit() as old:
        old.run_until_idle()
        now = old.now()
    with Kit(now=now) as new:
        deployed(calls, **options)
        new.advance("2h")
    run.refresh_from_db()
    assert run.result() == "done"
    assert calls == ["one", "two", "told"]


def test_run_resumed_in_a_worker_without_its_function_waits_for_another() -> None:
    calls: list[str] = []
    with Kit() as new:
        run = deployed(calls).enqueue()
        new.run_until_idle()
        now = new.now()
    with Kit(now=now) as old:
        old.advance("2h")
        run.refresh_from_db()
        assert (run.status, run.crash_count, run.lease_token) == ("queued", 0, None)
        now = old.now()
    with Kit(now=now) as new:
        deployed(calls)
        new.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "done"
    assert calls == ["one", "two", "told"]


def test_retry_in_a_worker_without_the_function_waits_for_another() -> None:
    calls: list[int] = []

    def deploy() -> durable.Function:
        @durable.function(id="shop.flaky", backoff=durable.Backoff.fixed("1m"))
        def flaky(ctx):
            calls.append(1)
            if len(calls) < 2:
                raise ValueError("not yet")
            return "done"

        return flaky

    with Kit() as new:
        run = deploy().enqueue()
        new.run_until_idle()
        now = new.now()
    with Kit(now=now) as old:
        old.advance("10m")
        run.refresh_from_db()
        assert (run.status, run.attempt) == ("queued", 1)
        now = old.now()
    with Kit(now=now) as new:
        deploy()
        new.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "done"


def test_handler_missing_in_a_worker_is_left_to_another() -> None:
    calls: list[str] = []

    def deploy() -> durable.Function:
        @durable.function(
            id="shop.order",
            on_complete=durable.function(id="shop.thank")(
                lambda ctx: calls.append("thanks")
            ),
        )
        def order(ctx):
            return "done"

        return order

    with Kit() as new:
        deploy().enqueue()
        now = new.now()
    with Kit(now=now) as middle:
        deploy()
        registry._functions.pop("shop.thank", None)
        middle.run_until_idle()
        now = middle.now()
    with Kit(now=now) as new:
        deploy()
        new.run_until_idle()
    assert calls == ["thanks"]
    assert set(Run.objects.values_list("status", flat=True)) == {"completed"}


def test_left_run_can_be_cancelled() -> None:
    run = started([])
    with Kit() as kit:
        kit.run_until_idle()
        assert run.cancel("not needed any more") is True
        kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "cancelled"


def test_run_that_was_paused_during_the_claim_stays_paused() -> None:
    run = started([])
    with Kit() as kit:
        (claimed,) = leases.claim("default", 1, "old")
        assert run.pause("a person") is True
        attempt.execute_attempt(claimed, threads=0)
        kit.run_until_idle()
        run.refresh_from_db()
        assert (run.status, run.reason) == ("paused", "a person")
        assert run.lease_token is None


def test_child_of_an_unknown_function_is_refused_by_name(durable_kit: Kit) -> None:
    @durable.function(id="parent", retries=0)
    def parent(ctx):
        ctx.step.invoke("call", "shop.gone")

    run = parent.enqueue().wait(timeout=10)
    assert run.status == "failed"
    assert run.error["type"] == "UnknownFunction"
    assert "'shop.gone'" in run.error["message"]
    assert Run.objects.count() == 1


def test_backlog_of_unknown_functions_does_not_delay_known_ones() -> None:
    with Kit() as kit:
        new = deployed([])
        for _ in range(30):
            new.enqueue()
        now = kit.now()
    with Kit(now=now) as kit:
        look = durable.function(id="look")(lambda ctx: 1)
        runs = [look.enqueue() for _ in range(3)]
        kit.run_until_idle()
        for run in runs:
            run.refresh_from_db()
            assert run.status == "completed"
    assert Run.objects.filter(status="queued", claim_count=0).count() == 30
