"""Redundant wake-ups cost next to nothing."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from durable_jobs import clock, durable
from durable_jobs.maintenance import tick
from durable_jobs.models import Run
from durable_jobs.worker import celery_tasks, queue_loop
from durable_jobs.worker.celery_tasks import work
from tests.costs.conftest import Watch

pytestmark = pytest.mark.usefixtures("silence", "nothing_seen")

LONG = timedelta(seconds=10 * queue_loop.MAX_CLOCK_SKEW)


@pytest.fixture
def nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin as a process that has not checked yet."""
    monkeypatch.setattr(queue_loop, "_drained_at", {})


def enqueue() -> Run:
    return durable.function(id="costs")(lambda ctx: "done").enqueue()


def sent_at(ago: timedelta = timedelta()) -> float:
    return (clock.now() - ago).timestamp()


def test_wake_up_is_executed():
    run = enqueue()
    assert work("default", sent_at()) == 1
    run.refresh_from_db()
    assert run.result() == "done"


def test_wake_up_sent_before_the_last_check_queries_nothing(watch: Watch):
    work("default", sent_at())
    before = sent_at(LONG)
    with watch() as texts:
        assert work("default", before) == 0
    assert texts == []


def test_wake_up_sent_after_the_last_check_is_executed():
    work("default", sent_at())
    run = enqueue()
    assert work("default", sent_at()) == 1
    run.refresh_from_db()
    assert run.status == "completed"


def test_small_clock_differences_lose_no_wake_up():
    work("default", sent_at())
    enqueue()
    assert (
        work("default", sent_at(timedelta(seconds=queue_loop.MAX_CLOCK_SKEW / 2))) == 1
    )


def test_check_of_one_queue_covers_no_wake_up_of_another():
    work("other", sent_at())
    enqueue()
    assert work("default", sent_at(LONG)) == 1


def test_interrupted_check_covers_no_wake_up():
    run = enqueue()
    queue_loop.drain_queue("default", finished=lambda: True)
    assert work("default", sent_at(LONG)) == 1
    run.refresh_from_db()
    assert run.status == "completed"


def test_wake_up_without_a_time_is_executed():
    work("default", sent_at())
    enqueue()
    assert work("default") == 1


def test_foreign_message_does_nothing():
    enqueue()
    assert work(None, sent_at()) == 0
    assert work("default", "yesterday") == 0


def test_wake_up_is_executed_after_the_database_clock_went_back():
    later = clock.now() + timedelta(hours=1)
    with clock.using(clock.VirtualClock(later)):
        queue_loop.drain_queue("default")
    run = enqueue()
    assert work("default", sent_at()) == 1
    assert Run.objects.get(pk=run.pk).status == "completed"


def test_queued_ticks_are_merged(db: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(celery_tasks, "_ticked_at", -math.inf)
    ticked = []
    monkeypatch.setattr(tick, "tick", lambda: ticked.append(1) or {"timers": 1})
    given = [celery_tasks.tick() for _ in range(5)]
    assert given == [{"timers": 1}, {}, {}, {}, {}]
    assert ticked == [1]
