"""Timers that are due soon: a worker is notified just before they are due."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from durable_jobs import clock, durable, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.maintenance import timers
from durable_jobs.models import Run, Wait
from durable_jobs.statuses import RunStatus
from durable_jobs.worker import background
from durable_jobs.worker.background import BackgroundThread
from durable_jobs.worker.celery_notifier import CeleryNotifier
from durable_jobs.worker.celery_tasks import work
from durable_jobs.worker.queue_loop import drain_queue
from durable_jobs.worker.timer_alarms import (
    ALARM_LEAD,
    FARTHEST_ALARM,
    GRACE,
    TimerAlarms,
)
from tests.engine.workers import Deaf
from tests.lab.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

SOON = timedelta(seconds=0.3)


class Notifications:
    """Records which message was sent when."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, datetime]] = []
        self.at: list[datetime] = []

    def __call__(self, queue: str, moment: datetime) -> None:
        self.at.append(clock.now())
        self.sent.append((queue, moment))


@pytest.fixture
def notifications() -> Notifications:
    return Notifications()


@pytest.fixture
def alarms() -> Iterator[TimerAlarms]:
    clock.now()  # queries the database here, not in the thread
    thread = BackgroundThread()
    yield thread.alarms
    thread.stop()


def test_idle_process_sends_a_message_just_before_an_alarm(
    alarms: TimerAlarms, notifications: Notifications
):
    due = clock.now() + SOON
    alarms.add(due, "a", notifications)
    until(lambda: notifications.sent, "a wake-up")
    assert notifications.sent == [("a", due)]
    assert notifications.at[0] >= due - timedelta(seconds=2 * ALARM_LEAD)


def test_alarms_send_one_message_per_queue_and_time(
    alarms: TimerAlarms, notifications: Notifications
):
    due = clock.now() + SOON
    later = due + timedelta(seconds=10 * ALARM_LEAD)
    for moment, queue in ((later, "a"), (due, "b"), (due, "a"), (due, "a")):
        alarms.add(moment, queue, notifications)
    until(lambda: len(notifications.sent) == 3, "three wake-ups")
    assert sorted(notifications.sent) == [("a", due), ("a", later), ("b", due)]


def test_draining_thread_takes_the_alarm_without_a_message(
    alarms: TimerAlarms, notifications: Notifications
):
    due = clock.now() + SOON
    with alarms.draining("a"):
        alarms.add(due, "a", notifications)
        assert not alarms.take_due("a")
        assert not alarms.take_due("b")
        until(lambda: alarms.take_due("a"), "the alarm")
        assert clock.now() >= due
        assert not alarms.take_due("a")
    assert notifications.sent == []


def test_alarm_during_a_long_run_sends_a_message(
    alarms: TimerAlarms, notifications: Notifications
):
    due = clock.now() + SOON
    with alarms.draining("a"):
        alarms.add(due, "a", notifications)
        until(lambda: notifications.sent, "a wake-up")
    assert notifications.sent == [("a", due)]


def test_alarm_left_by_a_draining_thread_sends_a_message(
    alarms: TimerAlarms, notifications: Notifications
):
    with alarms.draining("a"):
        alarms.add(clock.now() + timedelta(seconds=GRACE / 10), "a", notifications)
    until(lambda: notifications.sent, "a wake-up")


def test_far_alarms_are_left_to_the_tick(
    alarms: TimerAlarms, notifications: Notifications
):
    alarms.add(clock.now() + FARTHEST_ALARM + timedelta(seconds=1), "a", notifications)
    assert alarms._alarms == {}


class Napping(Deaf):
    """Receives no messages, but sets alarms as Celery does."""

    notify_at = CeleryNotifier.notify_at
    _notify_due = CeleryNotifier._notify_due


def napper(ctx: durable.Context) -> None:
    ctx.step.sleep("nap", ctx.event.data["seconds"])


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Yield a function that sleeps, with alarms set and wake-ups counted."""
    monkeypatch.setattr(background, "_background", None)
    with registry.temporary(), notifier.using(Napping()):
        yield durable.function(id="naps")(napper)
        background.background_thread().stop()


def test_draining_worker_continues_a_sleep_that_ends(naps: Any):
    first, second = naps.enqueue({"seconds": 0.001}), naps.enqueue({"seconds": 3600})
    drain_queue("default")
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == ("completed", "waiting")


def test_due_sleep_ends_with_a_message_for_any_queue(naps: Any):
    run = naps.enqueue({"seconds": 3600})
    drain_queue("default")
    Wait.objects.update(due_at=clock.now())
    assert drain_queue("other") == 0
    run.refresh_from_db()
    assert run.status == "queued"


def test_message_before_its_moment_is_processed_at_the_moment(
    naps: Any, monkeypatch: pytest.MonkeyPatch
):
    looked: list[datetime] = []
    monkeypatch.setattr(
        "durable_jobs.worker.celery_tasks.drain_queue",
        lambda queue, **options: looked.append(clock.now()),
    )
    moment = clock.now() + timedelta(seconds=ALARM_LEAD * 0.9)
    work("default", moment.timestamp())
    assert looked[0] >= moment


def test_waits_that_fail_to_end_are_postponed(
    naps: Any, monkeypatch: pytest.MonkeyPatch
):
    tried: list[Wait] = []

    def fail(wait: Wait) -> None:
        tried.append(wait)
        raise RuntimeError("broken")

    monkeypatch.setattr(timers, "BATCH", 2)
    monkeypatch.setitem(timers._END_ACTIONS, "timeout", fail)
    due = clock.now() - timedelta(seconds=1)
    runs = [naps.enqueue({"seconds": 3600}) for _ in range(5)]
    while drain_queue("default"):
        pass
    Wait.objects.filter(run__in=runs[:4]).update(kind="timeout", due_at=due)
    Wait.objects.filter(run=runs[4]).update(due_at=due + timedelta(seconds=0.5))
    assert timers.sweep() == 5
    assert len(tried) == 4
    assert timers.sweep() == 0
    assert len(tried) == 4
    assert list(Run.objects.filter(status=RunStatus.QUEUED)) == [runs[4]]
    assert Wait.objects.filter(due_at__gt=clock.now()).count() == 4
