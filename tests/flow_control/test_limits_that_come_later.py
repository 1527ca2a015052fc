"""A deploy adds a limit: it applies to earlier runs too, and none is lost."""

from __future__ import annotations

import logging

import pytest

from durable_jobs import durable
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run, Slot
from tests.flow_control.conftest import Diary, count

the_release_before = registry.temporary

BOTH = ["runs", "steps"]


@pytest.mark.parametrize("of", BOTH)
def test_queued_runs_obey_the_new_limit(diary: Diary, of: str) -> None:
    with the_release_before():
        diary.work()
        diary.sends(6)
    diary.work(concurrency=durable.Concurrency(2, of=of))
    diary.kit.run_until_idle()
    assert diary.peak == 2
    assert diary.order == [0, 1, 2, 3, 4, 5]
    assert count("completed") == 6


def test_queued_runs_join_the_backlogs_of_their_own_keys(diary: Diary) -> None:
    with the_release_before():
        diary.work()
        for tenant in ("a", "b"):
            diary.sends(2, tenant=tenant, nap="1h")
    diary.work(concurrency=durable.Concurrency(1, key="event.data.tenant", of="runs"))
    diary.kit.run_until_idle()
    assert diary.order == [0, 0]
    diary.kit.advance("1h")
    assert diary.order == [0, 0, 1, 1]


def test_second_limit_counts_as_well_as_the_first(diary: Diary) -> None:
    loose = durable.Concurrency(4, of="runs")
    with the_release_before():
        diary.work(concurrency=loose)
        diary.sends(6, tenant="a", nap="1h")
    tight = durable.Concurrency(1, key="event.data.tenant", of="runs")
    diary.work(concurrency=[loose, tight])
    diary.kit.run_until_idle()
    assert diary.order == [0]
    assert Slot.objects.filter(released_at=None).count() == 2, "one run at each limit"
    diary.kit.advance("6h")
    assert diary.times == [3600 * n for n in range(6)]


def test_sleeping_run_acquires_a_step_slot_when_it_resumes(diary: Diary) -> None:
    with the_release_before():
        diary.work()
        diary.sends(4, nap="1h")
        diary.kit.run_until_idle()
        assert count("waiting") == 4
    diary.work(concurrency=1)
    diary.peak = 0
    diary.kit.advance("1h")
    assert count("completed") == 4
    assert set(Run.objects.values_list("claim_count", flat=True)) == {2}
    flows = Run.objects.values_list("flow", flat=True)
    assert list(flows) == [{"concurrency:0": None}] * 4, "the runs were in the backlog"


def test_run_that_has_begun_needs_no_place_among_the_runs(diary: Diary) -> None:
    with the_release_before():
        diary.work()
        diary.sends(2, nap="1h")
        diary.kit.run_until_idle()
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.kit.advance("1h")
    assert count("completed") == 2
    assert not Slot.objects.exists()


def test_run_whose_worker_died_before_it_began_takes_a_slot(diary: Diary) -> None:
    with the_release_before():
        diary.work()
        diary.sends(3, nap="1h")
    # As after the claim of a worker that died, once the lease has expired.
    Run.objects.update(claim_count=1, crash_count=1, started_at=diary.began)
    diary.work(concurrency=durable.Concurrency(1, of="runs"))
    diary.kit.advance("3h")
    assert diary.entries == [(0, 0), (1, 3600), (2, 7200)]


def test_queued_runs_are_spaced_by_a_new_throttle(diary: Diary) -> None:
    with the_release_before():
        diary.work()
        diary.sends(4)
    diary.work(throttle=durable.Throttle(1, per="1m"))
    diary.kit.advance("3m")
    assert diary.times == [0, 60, 120, 180]


def test_queued_runs_keep_their_order(diary: Diary) -> None:
    with the_release_before():
        diary.work()
        diary.sends(3, nap="1h")
    diary.work(ordering="'all'")
    diary.kit.advance("3h")
    assert diary.entries == [(0, 0), (1, 3600), (2, 7200)]


def test_accepted_runs_are_not_skipped(diary: Diary) -> None:
    """A new screening rule applies only to runs that are sent after it."""
    with the_release_before():
        diary.work()
        diary.sends(3, nap="1h")
    single = durable.Singleton(mode="skip")
    diary.work(rate_limit=durable.RateLimit(1, per="1d"), singleton=single)
    diary.kit.advance("3h")
    assert diary.times == [0, 3600, 7200], "runs are sequential"
    assert count("completed") == 3
    diary.sends(2)
    diary.kit.run_until_idle()
    assert count("completed") == 4
    assert count("skipped") == 1


def test_run_whose_key_fails_joins_the_backlog_without_a_key(
    diary: Diary, caplog: pytest.LogCaptureFixture
) -> None:
    with the_release_before():
        diary.work()
        diary.send(1)
    diary.work(concurrency=durable.Concurrency(1, key=lambda event: event.data["gone"]))
    with caplog.at_level(logging.WARNING, "durable_jobs"):
        diary.kit.run_until_idle()
    assert count("completed") == 1
    assert "A key of concurrency:0 of flow.work failed" in caplog.text


def test_retry_obeys_the_new_limit_and_keeps_its_count(diary: Diary) -> None:
    calls = []

    def declare(**limits):
        @durable.function(id="flow.flaky", retries=2, **limits)
        def flaky(ctx):
            def body():
                calls.append(diary.kit.now())
                if len(calls) < 2:
                    raise ValueError("once")

            ctx.step.run("flaky", body)

        return flaky

    with the_release_before():
        run = declare().enqueue()
        diary.kit.run_until_idle()
    declare(concurrency=1)
    diary.kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, run.crash_count, len(calls)) == ("completed", 0, 2)
