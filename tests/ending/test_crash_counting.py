"""A run that kills its workers fails after a limit of crashes."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit


@pytest.fixture
def heavy(durable_kit: Kit) -> durable.Function:
    """Declare a function with a step that may kill its worker."""

    @durable.function(
        id="heavy", retries=0, on_failure=lambda ctx: ctx.event.data["error"]["type"]
    )
    def heavy(ctx):
        ctx.step.run("light", lambda: None)
        return ctx.step.run("explode", lambda: "fine")

    return heavy


def test_run_survives_four_crashes(durable_kit: Kit, heavy: durable.Function) -> None:
    durable_kit.crash_at("explode", times=4)
    run = heavy.enqueue()
    durable_kit.advance("10m")
    run.refresh_from_db()
    assert run.result() == "fine"
    # No retry was used: a crash is no error of the function.
    assert run.attempt == 0
    assert not run.attempts.exists()


def test_fifth_crash_fails_the_run_with_a_reason(
    durable_kit: Kit, heavy: durable.Function
) -> None:
    durable_kit.crash_at("explode", times=100)
    run = heavy.enqueue()
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.error["type"] == "WorkerLost"
    assert "died 5 times" in run.error["message"]
    assert "MAX_CRASHES" in run.error["message"]
    assert Run.objects.get(parent=run).result() == "WorkerLost"


def test_limit_is_a_setting(
    durable_kit: Kit, heavy: durable.Function, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"MAX_CRASHES": 2}
    durable_kit.crash_at("explode", times=1)
    survivor = heavy.enqueue()
    durable_kit.advance("10m")
    survivor.refresh_from_db()
    assert survivor.status == "completed"
    durable_kit.crash_at("explode", times=2)
    victim = heavy.enqueue()
    durable_kit.advance("10m")
    victim.refresh_from_db()
    assert victim.error["type"] == "WorkerLost"


def test_attempt_that_ends_resets_the_crash_count(
    durable_kit: Kit,
) -> None:
    @durable.function(id="long")
    def long(ctx):
        for number in range(10):
            ctx.step.run(f"part {number}", lambda: None)
            ctx.step.sleep(f"night {number}", "1h")
        return "done"

    for number in range(10):
        durable_kit.crash_at(f"part {number}", times=3)
    run = long.enqueue()
    durable_kit.advance("2d")
    run.refresh_from_db()
    assert run.result() == "done"
    assert run.crash_count == 0


def test_crash_is_counted_when_the_attempt_begins(
    durable_kit: Kit, heavy: durable.Function
) -> None:
    durable_kit.crash_at("light", when="before")
    run = heavy.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert (run.status, run.crash_count, run.claim_count) == ("running", 1, 1)
    durable_kit.advance("2m")
    run.refresh_from_db()
    assert (run.status, run.crash_count) == ("completed", 0)


def test_crash_counts_only_for_the_run_that_executed(
    durable_kit: Kit, heavy: durable.Function
) -> None:
    @durable.function(id="innocent")
    def innocent(ctx):
        return ctx.step.run("work", lambda: "fine")

    durable_kit.crash_at("explode", times=100)
    heavy.enqueue()
    runs = [innocent.enqueue() for _ in range(5)]
    durable_kit.advance("1h")
    for run in runs:
        run.refresh_from_db()
        assert run.result() == "fine"
