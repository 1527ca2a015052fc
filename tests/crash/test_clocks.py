"""Clocks jump, and machines disagree about the time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from durable_jobs import clock
from durable_jobs.models import Run, Schedule, Step
from tests.lab import durable as functions
from tests.lab.databases import movable_clock
from tests.lab.models import Effect
from tests.lab.processes import ROOT, Lab, Process, until
from tests.lab.watching import completed, ended, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

HOUR = 3600


def skewed(lab: Lab, seconds: int) -> Process:
    """Start a worker whose wall clock is wrong."""
    path = f"{ROOT / 'tests/lab/skew'}"
    return lab.worker("-P", "solo", PYTHONPATH=path, LAB_SKEW=str(seconds))


@pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_worker_whose_clock_is_an_hour_wrong_works_normally(
    lab: Lab, seconds: int
) -> None:
    worker = skewed(lab, seconds)
    lab.beat()
    runs = [functions.sleeper.enqueue({"seconds": 1}) for _ in range(3)]
    until(lambda: completed(*runs), "the sleepers to end", lab)
    # Its log uses its wall clock.
    said = re.search(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),", worker.text())
    assert said is not None
    wrong = datetime.strptime(said[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    assert abs((wrong - datetime.now(UTC)).total_seconds() - seconds) < 300  # noqa: TID251  # the wall clock is meant
    for nap in Step.objects.filter(name="nap"):
        after = Effect.objects.get(run=str(nap.run_id), label="after")
        assert nap.started_at is not None
        assert after.at - nap.started_at >= timedelta(seconds=1), "woken too early"
        assert after.at - nap.started_at < timedelta(minutes=5)


def test_workers_with_clocks_two_hours_apart_take_over_no_live_run(
    lab: Lab,
) -> None:
    skewed(lab, HOUR)
    skewed(lab, -HOUR)
    lab.beat()
    runs = [functions.patient.enqueue() for _ in range(6)]
    until(lambda: completed(*runs), "all runs to end", lab)
    assert len(set(Effect.objects.values_list("pid", flat=True))) == 2
    assert not Run.objects.filter(claim_count__gt=1).exists(), (
        "a lease was treated as expired"
    )


def test_time_of_the_database_may_jump_forward_and_back(lab: Lab) -> None:
    with movable_clock() as time:
        lab.worker("-P", "threads", "-c", "4", LAB_RESYNC="0.1")
        lab.beat()
        before = functions.five_steps.enqueue()
        until(lambda: completed(before), "the worker to work", lab)
        sleeper = functions.sleeper.enqueue({"seconds": HOUR})
        under_way = [functions.patient.enqueue() for _ in range(2)]
        until(lambda: all(labels(run) for run in under_way), "them to begin", lab)
        time.move(timedelta(hours=2))
        until(lambda: completed(sleeper, *under_way), "all to end", lab)
        under_way = [functions.patient.enqueue() for _ in range(2)]
        until(lambda: all(labels(run) for run in under_way), "them to begin", lab)
        time.move(timedelta(hours=-1))
        late = functions.five_steps.enqueue()
        until(lambda: completed(late), "runs sent afterwards to end", lab)
        time.move(timedelta(hours=2, minutes=1))
        until(lambda: completed(*under_way), "all to end", lab)
        lab.close()


def test_cron_fires_each_time_once_when_the_clock_goes_back(lab: Lab) -> None:
    with movable_clock() as time:
        lab.worker("-P", "solo", LAB_RESYNC="0.1", LAB_CRON="1")
        lab.beat()
        lab.beat()
        rows = Schedule.objects.filter(function="lab.minutely")
        until(rows.exists, "the schedule", lab)
        fired = Run.objects.filter(function="lab.minutely")
        for hours in (1, 0, 1, -1, 1.5):
            time.move(timedelta(hours=hours))
            moved = functions.five_steps.enqueue()
            until(lambda moved=moved: ended(moved), "a run at that time", lab)
        until(
            lambda: rows.get().due_at > clock.now() and completed(*fired),
            "the crons to fire",
            lab,
        )
        slots = [run.data["scheduled_at"] for run in fired]
        assert len(slots) == len(set(slots)), "an occurrence has fired twice"
        assert len(slots) >= 60
        lab.close()
