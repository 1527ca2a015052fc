"""After an outage, overdue work takes effect in the order of its due times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.exceptions import CallbackClosed
from durable_jobs.lifecycle import callbacks
from durable_jobs.maintenance import tick, timers
from durable_jobs.models import Run, Wait
from durable_jobs.store import events
from durable_jobs.testing import Kit

Sweep = Callable[[], Any]


def waits_for_reply(**options: Any) -> durable.Function:
    @durable.function(id="waits", **options)
    def waits(ctx):
        return ctx.step.wait_for_event("w", "app/reply", timeout="1h") is not None

    return waits


def status(run: Run) -> str:
    return str(Run.objects.get(pk=run.pk).status)


@pytest.mark.parametrize(
    "sweep",
    [tick.tick, timers.sweep, lambda: timers.end_due(8, "default")],
    ids=["tick", "sweep", "worker"],
)
def test_event_that_came_in_time_wins_over_the_timeout(kit: Kit, sweep: Sweep) -> None:
    run = waits_for_reply().enqueue()
    kit.run_until_idle()
    kit.advance("30m", run=False)
    kit.send("app/reply")
    kit.advance("2h", run=False)
    sweep()
    kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is True


def test_work_after_the_timeout_loses(kit: Kit) -> None:
    run = waits_for_reply().enqueue()
    kit.run_until_idle()
    kit.advance("61m", run=False)
    kit.send("app/reply")
    kit.advance("1h", run=False)
    kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is False


def test_event_that_asks_the_function_after_the_timeout_loses(kit: Kit) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        found = ctx.step.wait_for_event(
            "w", "app/reply", if_=lambda own, came: True, timeout="1h"
        )
        return found is not None

    run = waits.enqueue()
    kit.run_until_idle()
    kit.advance("61m", run=False)
    kit.send("app/reply")
    kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is False


def test_event_that_cancels_in_time_wins_over_the_timeout(kit: Kit) -> None:
    run = waits_for_reply(cancel_on=durable.CancelOn("app/stop")).enqueue()
    kit.run_until_idle()
    kit.advance("30m", run=False)
    kit.send("app/stop")
    kit.advance("2h", run=False)
    kit.run_until_idle()
    assert status(run) == "cancelled"


def test_event_that_came_in_time_wins_over_the_end_of_the_run(kit: Kit) -> None:
    limits = durable.Timeouts(finish="1h")

    @durable.function(id="waits", timeouts=limits)
    def waits(ctx):
        ctx.step.wait_for_event("w", "app/reply")

    run = waits.enqueue()
    kit.run_until_idle()
    kit.advance("30m", run=False)
    kit.send("app/reply")
    kit.advance("2h", run=False)
    timers.sweep()
    # Its sleep ended in time, but the run exceeds its timeout all the same.
    assert Run.objects.get(pk=run.pk).reason.startswith("It did not end in time")
    assert run.steps.get(name="w").status == "completed"


def test_signal_after_the_timeout_finds_no_wait(kit: Kit) -> None:
    @durable.function(id="waits")
    def waits(ctx):
        return ctx.step.wait_for_signal("w", "go", timeout="1h")

    run = waits.enqueue()
    kit.run_until_idle()
    kit.advance("61m", run=False)
    assert durable.signal("go", 1) is None
    kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is None


def test_answer_after_the_timeout_finds_no_wait(kit: Kit) -> None:
    tokens = []

    @durable.function(id="waits")
    def waits(ctx):
        submit = lambda callback: tokens.append(callback.token)  # noqa: E731
        return ctx.step.wait_for_callback("w", submit, timeout="1h")

    run = waits.enqueue()
    kit.run_until_idle()
    kit.advance("61m", run=False)
    with pytest.raises(CallbackClosed):
        callbacks.complete(tokens[0], data=1, error=None)
    kit.run_until_idle()
    assert status(run) == "failed"


def test_child_that_ends_after_the_timeout_loses(kit: Kit) -> None:
    child = durable.function(id="child")(lambda ctx: 1)

    @durable.function(id="parent")
    def parent(ctx):
        return ctx.step.invoke("c", child, timeout="1h")

    run = parent.enqueue()
    tick.tick()
    kit._serve("default")
    kit.advance("61m", run=False)
    kit._serve("default")
    kit.run_until_idle()
    assert status(run) == "failed"


def test_unrouted_event_delays_a_timeout(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = waits_for_reply().enqueue()
    kit.run_until_idle()
    kit.send("app/reply")
    kit.advance("2h", run=False)
    # Another router is processing the event.
    with monkeypatch.context() as patch:
        patch.setattr(events, "pending", lambda limit, excluding=(): [])
        timers.sweep()
    assert Wait.objects.filter(run=run, kind="timeout").exists()
    kit.run_until_idle()
    assert Run.objects.get(pk=run.pk).result() is True
