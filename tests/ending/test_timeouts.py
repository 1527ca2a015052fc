"""Runs that exceed their start or finish timeout end as cancelled."""

from __future__ import annotations

from datetime import timedelta

from durable_jobs import durable
from durable_jobs.models import Run, Wait
from durable_jobs.testing import Kit

HOUR = timedelta(hours=1)


def nap(ctx):
    """Sleep for as long as the data says."""
    ctx.step.sleep("long", ctx.event.data["sleep"])
    return "rested"


def test_run_that_is_queued_too_long_never_starts(durable_kit: Kit) -> None:
    function = durable.function(id="nap", timeouts=durable.Timeouts(start="1h"))(nap)
    run = function.enqueue({"sleep": 0})
    durable_kit.advance("61m", run=False)
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert (run.status, run.started_at) == ("cancelled", None)
    assert "timeouts.start" in run.reason
    assert not Wait.objects.exists()


def test_run_that_started_in_time_may_take_its_time(durable_kit: Kit) -> None:
    function = durable.function(id="nap", timeouts=durable.Timeouts(start="1h"))(nap)
    run = function.enqueue({"sleep": "3d"})
    durable_kit.advance("3d")
    run.refresh_from_db()
    assert run.result() == "rested"


def test_requested_delay_does_not_count_as_queueing(durable_kit: Kit) -> None:
    function = durable.function(
        id="nap", timeouts=durable.Timeouts(start="1h", finish="2h")
    )(nap)
    run = function.using(run_after="1d").enqueue({"sleep": "1h"})
    durable_kit.advance("2d")
    run.refresh_from_db()
    assert run.result() == "rested"


def test_run_that_takes_too_long_is_cancelled(durable_kit: Kit) -> None:
    function = durable.function(
        id="nap",
        timeouts=durable.Timeouts(finish="1h"),
        on_cancel=lambda ctx: ctx.event.data["reason"],
    )(nap)
    run = function.enqueue({"sleep": "2h"})
    durable_kit.advance("59m")
    run.refresh_from_db()
    assert run.status == "waiting"
    durable_kit.advance("2h")
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert run.ended_at == run.queued_at + HOUR
    assert "timeouts.finish" in run.reason
    assert Run.objects.get(parent=run).result() == run.reason


def test_time_in_the_queue_does_not_count_as_taking_long(durable_kit: Kit) -> None:
    function = durable.function(id="nap", timeouts=durable.Timeouts(finish="1h"))(nap)
    run = function.enqueue({"sleep": "50m"})
    durable_kit.advance("3h", run=False)
    durable_kit.advance("2h")
    run.refresh_from_db()
    assert run.result() == "rested"
    late = function.enqueue({"sleep": "70m"})
    durable_kit.advance("3h", run=False)
    durable_kit.advance("2h")
    late.refresh_from_db()
    assert late.status == "cancelled"
    assert late.started_at is not None
    assert late.ended_at == late.started_at + HOUR


def test_run_that_ends_in_time_leaves_no_timer(durable_kit: Kit) -> None:
    timeouts = durable.Timeouts(start=timedelta(hours=1), finish=7200)
    function = durable.function(id="nap", timeouts=timeouts)(nap)
    run = function.enqueue({"sleep": "1h"})
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.result() == "rested"
    assert not Wait.objects.exists()


def test_retries_do_not_start_the_clock_again(durable_kit: Kit) -> None:
    @durable.function(
        id="fail",
        timeouts=durable.Timeouts(finish="1h"),
        retries=20,
        backoff=durable.Backoff.fixed("10m"),
    )
    def fail(ctx):
        raise ValueError("no")

    run = fail.enqueue()
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert run.ended_at == run.queued_at + HOUR


def test_redriven_run_has_its_time_again(durable_kit: Kit) -> None:
    timeouts = durable.Timeouts(finish="1h")

    @durable.function(id="fix", timeouts=timeouts, retries=0)
    def fix(ctx):
        ctx.step.sleep("a while", "50m")
        if not fixed:
            raise ValueError("no")
        ctx.step.sleep("a while", ctx.event.data["sleep"])
        return "fixed"

    fixed: list[bool] = []
    runs = [fix.enqueue({"sleep": sleep}) for sleep in ("50m", "70m")]
    durable_kit.advance("5h")
    fixed.append(True)
    assert Run.objects.redrive() == 2
    durable_kit.advance("5h")
    for run in runs:
        run.refresh_from_db()
    assert [run.status for run in runs] == ["completed", "cancelled"]
