"""Ended runs are counted once, in periods of five minutes, for the overview."""

from __future__ import annotations

from datetime import timedelta

import pytest

from durable_jobs import durable
from durable_jobs.maintenance import run_stats, tick
from durable_jobs.models import Run, RunStats
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


@pytest.fixture
def kit() -> Kit:
    with Kit() as opened:
        opened.travel_to(run_stats.begin_of(opened.now()) + timedelta(minutes=5))
        yield opened


def runs(kit: Kit, count: int, fails: bool = False) -> None:
    name = "tests.fails" if fails else "tests.works"

    @durable.function(id=name, retries=0)
    def body(ctx):
        if fails:
            raise ValueError(name)

    for _ in range(count):
        body.enqueue()
    kit.run_until_idle()


def tallied() -> dict[tuple[str, str], int]:
    rows = RunStats.objects.exclude(function="")
    return {(row.function, row.status): row.count for row in rows}


def test_period_of_five_minutes_is_counted_when_it_is_over(kit: Kit) -> None:
    runs(kit, 3)
    runs(kit, 2, fails=True)
    run_stats.sweep()
    assert tallied() == {}
    kit.advance("6m")
    run_stats.sweep()
    expected = {("tests.works", "completed"): 3, ("tests.fails", "failed"): 2}
    assert tallied() == expected
    run_stats.sweep()
    assert tallied() == expected


def test_period_without_ended_runs_is_counted_too(kit: Kit) -> None:
    kit.travel_to(kit.now() + timedelta(hours=6), run=False)
    before = RunStats.objects.filter(function="").count()
    assert run_stats.sweep() == run_stats.IDLE_BATCH
    counted = RunStats.objects.filter(function="").count()
    assert counted == before + run_stats.IDLE_BATCH


def test_sweep_counts_fewer_periods_while_runs_wait(kit: Kit) -> None:
    RunStats.objects.all().delete()
    durable.function(id="tests.waits")(lambda ctx: None).enqueue()
    assert run_stats.sweep() == run_stats.BATCH
    kit.run_until_idle()
    assert run_stats.sweep() == run_stats.IDLE_BATCH


def test_sweep_counts_no_further_batch_after_many_runs(
    kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_stats, "MAX_RUNS", 3)
    runs(kit, 3)
    RunStats.objects.all().delete()
    kit.travel_to(kit.now() + timedelta(minutes=6), run=False)
    assert run_stats.sweep() == run_stats.BATCH


def test_period_missed_by_the_tick_is_counted_later(kit: Kit) -> None:
    runs(kit, 1)
    kit.travel_to(kit.now() + timedelta(hours=2), run=False)
    runs(kit, 1, fails=True)
    kit.travel_to(kit.now() + timedelta(minutes=6), run=False)
    run_stats.sweep()
    assert tallied() == {("tests.fails", "failed"): 1}
    while run_stats.sweep():
        pass
    assert tallied() == {("tests.fails", "failed"): 1, ("tests.works", "completed"): 1}
    counted = RunStats.objects.filter(function="").values_list("since", flat=True)
    assert len(counted) == run_stats.BACK / run_stats.LENGTH
    assert max(counted) - min(counted) == run_stats.BACK - run_stats.LENGTH


def test_newest_are_counted_first_and_then_a_week_back(kit: Kit) -> None:
    runs(kit, 1)
    kit.travel_to(kit.now() + timedelta(days=3), run=False)
    while run_stats.sweep():
        pass
    assert tallied() == {("tests.works", "completed"): 1}
    assert (
        RunStats.objects.filter(function="").count()
        == run_stats.BACK / run_stats.LENGTH
    )


def test_counts_go_after_eight_days(kit: Kit) -> None:
    runs(kit, 1)
    kit.advance("6m")
    run_stats.sweep()
    assert tallied()
    kit.travel_to(kit.now() + timedelta(days=9), run=False)
    run_stats.sweep()
    assert not tallied()
    assert Run.objects.count() == 1


def test_tick_counts(kit: Kit) -> None:
    runs(kit, 1)
    kit.travel_to(kit.now() + timedelta(minutes=7), run=False)
    assert tick.tick()["run_stats"]
    assert tallied()
