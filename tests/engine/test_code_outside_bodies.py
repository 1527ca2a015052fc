"""Failing conditions, keys, limits and receivers affect only their own run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.maintenance import tick
from durable_jobs.models import Event, Limit, Run
from durable_jobs.signals import run_changed
from durable_jobs.testing import Kit
from tests.engine.conftest import Start
from tests.engine.test_connection_state import LEAVING, untouched
from tests.engine.test_isolation import spoil, state


class Odd:
    """A value that has neither a truth value nor a representation."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __bool__(self) -> bool:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


ERRORS = {
    "an error": lambda: ValueError("neither"),
    "SystemExit": lambda: SystemExit(2),
}
failing = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)


@failing
@pytest.mark.django_db(transaction=True)
def test_receivers_that_raise_end_no_run(
    start: Start, error: Callable[[], BaseException]
):
    def raising(**kwargs: Any) -> None:
        raise error()

    def working(ctx):
        return ctx.step.run("work", lambda: 1)

    run_changed.connect(raising)
    try:
        run = start(working)
    finally:
        run_changed.disconnect(raising)
    assert run.status == "completed"


@failing
def test_conditions_without_a_truth_value_cancel_nothing(
    start: Start, durable_kit: Kit, error: Callable[[], BaseException]
):
    def napping(ctx):
        ctx.step.sleep("nap", "1h")

    rule = durable.CancelOn("t/stop", if_=lambda event, own: Odd(error()))
    run = start(napping, cancel_on=[rule])
    durable_kit.send("t/stop", {})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "waiting"
    assert not Event.objects.filter(pending=True).exists()


@failing
def test_keys_that_cannot_be_shown_skip_their_run(
    durable_kit: Kit, error: Callable[[], BaseException]
):
    @durable.function(
        id="keyed",
        on=durable.Event("t/keyed"),
        concurrency=durable.Concurrency(1, key=lambda event: [Odd(error())]),
    )
    def keyed(ctx):
        return None

    durable_kit.send("t/keyed", {})
    durable_kit.run_until_idle()
    run = Run.objects.get(function="keyed")
    assert run.status == "skipped"
    assert "key" in run.reason


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.django_db(transaction=True)
def test_limits_that_leave_a_transaction_open_stop_only_their_own_runs(
    start: Start, durable_kit: Kit, how: str
):
    def limit(key: Any) -> int:
        LEAVING[how]()
        return 5

    @durable.function(id="limited", concurrency=durable.Concurrency(limit))
    def limited(ctx):
        return None

    def working(ctx):
        return ctx.step.run("work", lambda: 1)

    held = limited.enqueue()
    assert start(working).status == "completed"
    held.refresh_from_db()
    assert held.status == "queued"
    assert "left a transaction open" in Limit.objects.get(function="limited").error
    assert untouched()


@pytest.mark.parametrize("how", LEAVING)
@pytest.mark.django_db(transaction=True)
def test_conditions_that_leave_a_transaction_open_match_nothing(
    start: Start, durable_kit: Kit, how: str
):
    def leaving(event: Any, own: Any) -> bool:
        LEAVING[how]()
        return True

    def napping(ctx):
        ctx.step.sleep("nap", "1h")

    run = start(napping, cancel_on=[durable.CancelOn("t/stop", if_=leaving)])
    durable_kit.send("t/stop", {})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "waiting"
    assert not Event.objects.filter(pending=True).exists()
    assert untouched()


@pytest.mark.django_db(transaction=True)
def test_limits_that_change_the_state_of_their_thread_change_no_ticks(durable_kit: Kit):
    before, calls = state(), []

    def limit(key: Any) -> int:
        calls.append(key)
        spoil()
        return 1

    @durable.function(id="limited", rate_limit=durable.RateLimit(limit, per="1h"))
    def limited(ctx):
        return None

    limited.enqueue()
    tick.tick()
    assert calls
    assert state() == before
