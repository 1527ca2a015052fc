"""Throttle: starts above the rate wait for their time; none is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.lifecycle import admission
from durable_jobs.models import Run
from tests.flow_control.conftest import Diary, count, statuses


def test_throttle_starts_one_run_each_interval(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(6, "1m"))
    diary.sends(5)
    diary.kit.advance("5m")
    assert diary.entries == [(0, 0), (1, 10), (2, 20), (3, 30), (4, 40)]


def test_burst_starts_at_once_and_then_one_each_interval(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(6, "1m", burst=3))
    diary.sends(6)
    diary.kit.advance("5m")
    assert diary.times == [0, 0, 0, 10, 20, 30]


def test_burst_is_refilled_by_one_each_interval(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(6, "1m", burst=3))
    diary.sends(3)
    diary.kit.advance("20s")
    diary.sends(4)
    diary.kit.advance("5m")
    assert diary.times == [0, 0, 0, 20, 20, 30, 40]
    diary.kit.advance("1h")
    diary.sends(4)
    diary.kit.advance("1m")
    base = diary.times[7]
    assert [when - base for when in diary.times[7:]] == [0, 0, 0, 10]


def test_keys_have_separate_rates(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(1, "10s", key="event.data.tenant"))
    for tenant in ("a", "b", None):
        diary.sends(2, tenant=tenant)
    diary.kit.advance("1m")
    assert diary.entries == [(0, 0)] * 3 + [(1, 10)] * 3


def test_throttle_counts_starts_and_no_resumes(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(1, "1h"))
    diary.send(0, nap="1m")
    diary.kit.advance("1m")
    assert count("completed") == 1


def test_retries_and_lost_leases_are_no_starts(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(1, "10m"))
    diary.sends(2)
    diary.kit.crash_at("note", "before")
    diary.kit.advance("5m")
    assert count("completed") == 1
    assert diary.times[0] < 300
    diary.kit.advance("5m")
    assert diary.entries[1] == (1, 600)


def test_throttled_run_waits_for_its_time_however_often_it_is_checked(
    diary: Diary,
) -> None:
    diary.work(throttle=durable.Throttle(1, "1m"))
    diary.sends(3)
    for _ in range(5):
        admission.admit("default", 10)
    assert Run.objects.filter(status="queued", backlog__isnull=True).count() == 1
    diary.kit.advance("2m")
    assert diary.times == [0, 60, 120]


def test_outage_is_not_made_up_for_by_more_than_the_burst(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(1, "1m", burst=2))
    diary.sends(5)
    diary.kit.advance("1h", run=False)
    diary.kit.advance("10m")
    assert diary.times == [3600, 3600, 3660, 3720, 3780]


@pytest.mark.parametrize(
    ("limit", "per", "burst", "expected"),
    [
        (1, "1ms", 1, [0, 0.001, 0.002]),
        (1000, "1s", 1, [0, 0.001, 0.002]),
        (3, "1s", 1, [0, 0.333333, 0.666666]),
        (1, 0.5, 2, [0, 0, 0.5]),
        (1, "366d", 1, [0, 31622400, 63244800]),
    ],
)
def test_rates_are_exact_to_the_millisecond_and_over_years(
    diary: Diary, limit: int, per: Any, burst: int, expected: list[float]
) -> None:
    diary.work(throttle=durable.Throttle(limit, per, burst=burst))
    diary.sends(3)
    diary.kit.advance("1s" if expected[-1] < 2 else "800d")
    assert [round(when, 3) for when in diary.times] == pytest.approx(expected, abs=1e-3)


def test_run_cancelled_before_its_time_does_not_use_it(
    diary: Diary,
) -> None:
    diary.work(throttle=durable.Throttle(1, "1m"))
    diary.sends(4)
    diary.kit.run_until_idle()
    for run in Run.objects.filter(data__n__in=[1, 2]):
        run.cancel()
    diary.kit.advance("5m")
    assert diary.entries == [(0, 0), (3, 60)]


def test_delayed_runs_count_when_they_start(diary: Diary) -> None:
    work = diary.work(throttle=durable.Throttle(1, "1m"))
    for n in range(3):
        work.using(run_after="1h").enqueue({"n": n})
    diary.kit.advance("2h")
    assert diary.times == [3600, 3660, 3720]


def test_backlogs_that_share_a_throttle_take_turns(diary: Diary) -> None:
    diary.work(
        throttle=durable.Throttle(1, "1m"),
        concurrency=durable.Concurrency(1, key="event.data.tenant"),
    )
    diary.sends(3, tenant="a")
    for n in (10, 11, 12):
        diary.send(n, tenant="b")
    diary.kit.advance("10m")
    assert sorted(diary.times) == [0, 60, 120, 180, 240, 300]
    assert sorted(diary.order[:2]) == [0, 10]
    assert [n for n in diary.order if n < 5] == [0, 1, 2]


def test_redriven_runs_are_throttled_again(diary: Diary) -> None:
    diary.work(throttle=durable.Throttle(1, "1m"))
    diary.sends(3)
    diary.kit.run_until_idle()
    Run.objects.live().cancel()
    assert statuses() == ["completed", "cancelled", "cancelled"]
    Run.objects.filter(status="cancelled").redrive()
    diary.kit.advance("5m")
    assert diary.times == [0, 60, 120]


def test_invoked_child_is_throttled_too(diary: Diary) -> None:
    child = diary.work("flow.child", throttle=durable.Throttle(1, "1m"))

    @durable.function(id="flow.parent")
    def parent(ctx):
        return [ctx.step.invoke(f"ask {n}", child, {"n": n}) for n in range(3)]

    run = parent.enqueue()
    diary.kit.advance("10m")
    assert run.wait().result() == [0, 1, 2]
    assert diary.times == [0, 60, 120]
