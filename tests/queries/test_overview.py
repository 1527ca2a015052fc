"""The figures of the overview, which stay cheap."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.maintenance import run_stats, tick
from durable_jobs.models import Pause, Run, RunStats, Worker
from durable_jobs.queries import error_groups
from durable_jobs.queries import overview as module
from durable_jobs.queries.overview import overview
from durable_jobs.testing import Kit
from tests.admin.conftest import make_runs

pytestmark = pytest.mark.django_db


def states() -> dict[str, tuple[int, bool]]:
    return {one.status: (one.count, one.more) for one in overview().states}


def attention() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one in overview().attention:
        found.setdefault(one.what, []).append(f"{one.count} {one.name}".rstrip())
    return found


def test_live_runs_are_counted_by_state_up_to_a_cap(
    durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_runs(3, status="queued", started_at=None, ended_at=None)
    make_runs(1, status="queued", started_at=None, ended_at=None, backlog=-1)
    make_runs(2, status="waiting", ended_at=None)
    make_runs(5)
    assert states() == {
        "queued": (4, False),
        "running": (0, False),
        "waiting": (2, False),
        "paused": (0, False),
    }
    monkeypatch.setattr(module, "MOST", 2)
    assert states()["queued"] == (2, True)


def test_ended_runs_are_counted_before_and_after_the_tick(
    durable_kit: Kit,
) -> None:
    @durable.function(id="tests.mixed", retries=0)
    def mixed(ctx):
        if ctx.event.data["n"] % 3 == 0:
            raise ValueError(ctx.event.data["n"])

    for _ in range(3):
        for n in range(3):
            mixed.enqueue({"n": n})
        durable_kit.run_until_idle()
        durable_kit.travel_to(durable_kit.now() + timedelta(minutes=40), run=False)
        while run_stats.sweep():
            pass
        mixed.enqueue({"n": 1})
        durable_kit.run_until_idle()
    found = {one.name: (one.ended, one.failed) for one in overview().periods}
    assert found == {"1h": (5, 1), "24h": (12, 3), "7d": (12, 3)}
    (line,) = overview().lines
    assert (line.function, sum(line.ended), sum(line.failed)) == ("tests.mixed", 12, 3)


def test_period_says_since_when_it_is_counted(durable_kit: Kit) -> None:
    def since() -> list[bool]:
        return [one.since is not None for one in overview().periods]

    assert since() == [False, True, True]
    now = durable_kit.now()
    while run_stats.sweep():
        if since() == [False, True, True]:
            assert overview().periods[1].since <= now - timedelta(hours=1)
    assert since() == [False, False, False]


def test_period_counts_the_newest_stretch_without_a_gap(durable_kit: Kit) -> None:
    now = durable_kit.now()
    make_runs(5, ended_at=now - timedelta(hours=9))
    make_runs(2, ended_at=now - timedelta(hours=2))
    while run_stats.sweep():
        pass
    hole = run_stats.begin_of(now - timedelta(hours=5))
    RunStats.objects.filter(since=hole).delete()
    hour, day, week = overview().periods
    assert hour.since is None
    assert (day.since, day.ended) == (hole + RunStats.LENGTH, 2)
    assert (week.since, week.ended) == (hole + RunStats.LENGTH, 2)


def test_time_between_an_end_and_its_redrive_is_no_duration(durable_kit: Kit) -> None:
    broken = [ValueError("first")]

    @durable.function(id="tests.redriven", retries=0)
    def redriven(ctx):
        ctx.step.sleep("work", "2s")
        if broken:
            raise broken.pop()

    run = redriven.enqueue()
    durable_kit.advance("2s")
    durable_kit.advance("1h")
    run.redrive()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "completed"
    assert run.stopped_for == timedelta(hours=1)
    assert overview().times.took_50 == timedelta(seconds=2)


def test_failures_are_grouped_by_function_error_and_step(durable_kit: Kit) -> None:
    def error(kind: str, step: str = "") -> dict[str, str]:
        return {"type": kind, "message": f"{kind} at {step}", "step_name": step}

    def failed(count: int, ended: int, **values: Any) -> None:
        at = durable_kit.now() - timedelta(minutes=ended)
        make_runs(count, status="failed", ended_at=at, **values)

    failed(3, 90, error=error("KeyError", "a"))
    failed(2, 20, error=error("KeyError", "b"))
    failed(1, 10, error=error("OSError"), function="tests.other")
    failed(1, 5, error=error("KeyError", "a"))
    groups = overview().errors
    assert [(one.count, one.function, one.type, one.step) for one in groups] == [
        (4, "tests.made", "KeyError", "a"),
        (1, "tests.other", "OSError", ""),
        (2, "tests.made", "KeyError", "b"),
    ]
    assert [one.new for one in groups] == [False, True, True]
    assert groups[0].message == "KeyError at a"
    assert Run.objects.get(pk=groups[0].run).error["step_name"] == "a"


def test_no_group_is_new_if_older_failures_were_not_read(
    durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_runs(3, status="failed", error={"type": "E"})
    assert overview().errors[0].new
    monkeypatch.setattr(error_groups, "FAILURES", 3)
    assert not overview().errors[0].new


def test_durations_are_those_of_the_last_ended_runs(
    durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = durable_kit.now()
    for seconds in range(1, 101):
        make_runs(
            1,
            queued_at=now - timedelta(seconds=seconds),
            started_at=now,
            ended_at=now + timedelta(seconds=2 * seconds),
        )
    times = overview().times
    assert times.runs == 100
    assert times.wait_50 == timedelta(seconds=51)
    assert times.wait_95 == timedelta(seconds=96)
    assert times.took_50 == timedelta(seconds=102)
    monkeypatch.setattr(module, "SAMPLE", 10)
    assert overview().times.took_50 == timedelta(seconds=192)


def test_work_for_people_is_shown(durable_kit: Kit) -> None:
    assert "no-tick" in attention()
    tick.record_tick()
    assert attention() == {}
    now = durable_kit.now()
    make_runs(1, status="paused", ended_at=None, reason="step x is recorded as a sleep")
    make_runs(
        2,
        status="running",
        ended_at=None,
        lease_token="01a212d5-4e56-7fd4-92c1-8496c9dd5670",
        lease_until=now - timedelta(minutes=5),
    )
    lost = {"type": "WorkerLost", "message": "m"}
    make_runs(1, status="failed", error=lost, function="tests.killer")
    long_ago = now - timedelta(minutes=11)
    make_runs(1, status="queued", ended_at=None, function="tests.gone", due_at=long_ago)
    make_runs(1, status="queued", ended_at=None, function="tests.soon")
    Pause.objects.create(kind="queue", name="slow", paused_at=now)
    assert attention() == {
        "paused": ["1 tests.made"],
        "stuck": ["2"],
        "exhausted": ["1 tests.killer"],
        "unknown": ["1 tests.gone"],
        "paused-queue": ["1 slow"],
    }


def test_oldest_queued_run_and_its_workers_are_shown(
    durable_kit: Kit,
) -> None:
    assert overview().oldest is None
    now = durable_kit.now()
    make_runs(1, status="queued", ended_at=None, due_at=now - timedelta(minutes=7))
    make_runs(1, status="queued", ended_at=None, due_at=now + timedelta(days=7))
    for name, ago in (("here", 5), ("gone", 300)):
        seen = now - timedelta(seconds=ago)
        Worker.objects.create(name=name, kind="worker", seen_at=seen, started_at=seen)
    found = overview()
    assert found.oldest == timedelta(minutes=7)
    assert found.workers == 1


def test_overview_has_as_many_queries_for_many_rows_as_for_few(
    durable_kit: Kit,
) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            overview()
        return len(captured)

    few = queries()
    make_runs(40, status="failed", error={"type": "E", "message": "m"})
    make_runs(40, function="tests.other")
    while run_stats.sweep():
        pass
    assert queries() == few
