"""Occurrences that become due while an earlier run is still live."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durable_jobs import durable
from durable_jobs.control import schedules
from durable_jobs.models import Run, Schedule
from durable_jobs.schedules import occurrences
from durable_jobs.testing import Kit

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def slow(kit: Kit) -> durable.Function:
    """Declare a function that takes two and a half hours."""

    @durable.function(id="slow")
    def slow(ctx):
        ctx.step.sleep("long", "2h30m")
        return ctx.event.data["scheduled_at"]

    return slow


def begun() -> list[tuple[float, float]]:
    """Return the hour of each run's occurrence, and the hour it began."""
    runs = Run.objects.exclude(started_at=None).order_by("pk")
    return [
        ((run.data["scheduled_at"] - NOON) / HOUR, (run.started_at - NOON) / HOUR)
        for run in runs
        if run.started_at
    ]


def test_allow_runs_occurrences_in_parallel(kit: Kit, slow: durable.Function) -> None:
    durable.schedules.create(slow, "0 * * * *")
    kit.advance("3h")
    assert begun() == [(1, 1), (2, 2), (3, 3)]


def test_skip_leaves_a_skipped_run(kit: Kit, slow: durable.Function) -> None:
    durable.schedules.create(slow, "0 * * * *", overlap="skip")
    kit.advance("7h")
    assert begun() == [(1, 1), (4, 4), (7, 7)]
    skipped = Run.objects.filter(status="skipped")
    assert [run.data["scheduled_at"] for run in skipped.order_by("pk")] == [
        NOON + hours * HOUR for hours in (2, 3, 5, 6)
    ]
    assert {run.reason for run in skipped} == {occurrences.STILL_RUNNING}


def test_queue_starts_each_after_the_one_before(
    kit: Kit, slow: durable.Function
) -> None:
    schedule = durable.schedules.create(slow, "0 * * * *", overlap="queue")
    kit.advance("7h")
    assert begun() == [(1, 1), (2, 3.5), (3, 6)]
    schedule.refresh_from_db()
    assert schedule.queued_occurrences == [
        (NOON + n * HOUR).isoformat() for n in (4, 5, 6, 7)
    ]
    schedule.pause()
    kit.advance("10h")
    assert len(begun()) == 3
    schedule.resume()
    kit.run_until_idle()
    assert begun()[3] == (4, 17)


def test_queued_occurrence_is_not_missed(kit: Kit, slow: durable.Function) -> None:
    durable.schedules.create(slow, "0 12 * * *", overlap="queue", catch_up="skip")
    schedule = Schedule.objects.get()
    schedule.run_now()
    kit.run_until_idle()
    assert schedule.run_now() is None
    kit.advance("2h30m")
    assert begun() == [(0, 0), (0, 2.5)]


def test_cancelled_run_releases_the_next_occurrence(
    kit: Kit, slow: durable.Function
) -> None:
    durable.schedules.create(slow, "0 * * * *", overlap="queue")
    kit.advance("2h")
    Run.objects.get(status="waiting").cancel()
    kit.run_until_idle()
    assert begun() == [(1, 1), (2, 2)]


def test_lost_announcement_of_an_end_is_made_up_for(
    kit: Kit, slow: durable.Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "durable_jobs.store.schedules.check_queued_occurrence", lambda run: None
    )
    durable.schedules.create(slow, "0 * * * *", overlap="queue")
    kit.advance("4h")
    (first, second) = begun()
    assert first == (1, 1)
    assert second[0] == 2
    assert 3.5 <= second[1] <= 4


def test_run_now_obeys_overlap_too(kit: Kit, slow: durable.Function) -> None:
    schedule = durable.schedules.create(slow, "0 0 1 1 *", overlap="skip")
    first, second = schedule.run_now(), schedule.run_now()
    assert first is not None
    assert second is not None
    assert (first.status, second.status) == ("queued", "skipped")


def test_missed_occurrences_obey_overlap_among_themselves(
    kit: Kit, slow: durable.Function
) -> None:
    for overlap in ("skip", "queue"):
        durable.schedules.create(slow, "0 * * * *", catch_up="all", overlap=overlap)
    kit.advance("3h", run=False)
    kit.run_until_idle()
    assert begun() == [(1, 3), (1, 3)]
    assert Run.objects.filter(status="skipped").count() == 2
    assert Schedule.objects.exclude(queued_occurrences=[]).get().overlap == "queue"


def test_queued_occurrences_are_limited_by_the_row(
    kit: Kit, slow: durable.Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in (occurrences, schedules):
        monkeypatch.setattr(place, "MAX_QUEUED", 5)
    schedule = durable.schedules.create(slow, "* * * * *", overlap="queue")
    kit.advance("10m")
    schedule.refresh_from_db()
    assert len(schedule.queued_occurrences) == occurrences.MAX_QUEUED
    assert {run.reason for run in Run.objects.filter(status="skipped")} == {
        occurrences.QUEUE_FULL
    }
    with pytest.raises(durable.ConfigurationError, match="queued occurrences"):
        schedule.run_now()
    waiting = len(schedule.queued_occurrences) + Run.objects.count()
    assert waiting == 10


def test_change_to_allow_starts_queued_occurrences(
    kit: Kit, slow: durable.Function
) -> None:
    schedule = durable.schedules.create(slow, "0 * * * *", overlap="queue")
    kit.advance("3h")
    schedule.change(overlap="allow")
    kit.advance("1h")
    assert [slot for slot, _ in begun()] == [1, 2, 3, 4]


def test_declared_crons_overlap_alike(kit: Kit) -> None:
    @durable.function(id="slow", on=durable.Cron("0 * * * *", overlap="queue"))
    def slow(ctx):
        ctx.step.sleep("long", "90m")

    kit.advance("4h")
    assert begun() == [(1, 1), (2, 2.5), (3, 4)]
