"""Timers that are due soon: a worker looks at their queue at the moment."""

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
from durable_jobs.worker import background as keepers
from durable_jobs.worker.background import FARTHEST_ALARM, GRACE, LEAD, Keeper
from durable_jobs.worker.celery_tasks import CeleryNotifier, work
from durable_jobs.worker.queue_loop import drain_queue
from tests.engine.workers import Deaf
from tests.lab.processes import until

pytestmark = pytest.mark.django_db(transaction=True)

SOON = timedelta(seconds=0.3)


class Bells:
    """Notes which wake-up was sent when."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, datetime]] = []
        self.at: list[datetime] = []

    def __call__(self, queue: str, moment: datetime) -> None:
        self.at.append(clock.now())
        self.sent.append((queue, moment))


@pytest.fixture
def notifications() -> Bells:
    return Bells()


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    clock.now()  # asks the database here, not in the thread
    own = Keeper()
    yield own
    own.stop()


def test_a_resting_process_is_rung_for_just_before_an_alarm(
    keeper: Keeper, notifications: Bells
):
    due = clock.now() + SOON
    keeper.alarm(due, "a", notifications)
    until(lambda: notifications.sent, "a wake-up")
    assert notifications.sent == [("a", due)]
    assert notifications.at[0] >= due - timedelta(seconds=2 * LEAD)


def test_each_alarm_has_its_bell_and_each_queue_its_own(
    keeper: Keeper, notifications: Bells
):
    due = clock.now() + SOON
    later = due + timedelta(seconds=10 * LEAD)
    for moment, queue in ((later, "a"), (due, "b"), (due, "a"), (due, "a")):
        keeper.alarm(moment, queue, notifications)
    until(lambda: len(notifications.sent) == 3, "three wake-ups")
    assert sorted(notifications.sent) == [("a", due), ("a", later), ("b", due)]


def test_a_thread_that_serves_the_queue_is_told_and_needs_no_bell(
    keeper: Keeper, notifications: Bells
):
    due = clock.now() + SOON
    with keeper.serving("a"):
        keeper.alarm(due, "a", notifications)
        assert not keeper.alarmed("a")
        assert not keeper.alarmed("b")
        until(lambda: keeper.alarmed("a"), "the alarm")
        assert clock.now() >= due
        assert not keeper.alarmed("a")
    assert notifications.sent == []


def test_a_thread_that_is_in_a_long_run_needs_a_bell(
    keeper: Keeper, notifications: Bells
):
    due = clock.now() + SOON
    with keeper.serving("a"):
        keeper.alarm(due, "a", notifications)
        until(lambda: notifications.sent, "a wake-up")
    assert notifications.sent == [("a", due)]


def test_a_thread_that_leaves_its_queue_leaves_its_alarms_to_bells(
    keeper: Keeper, notifications: Bells
):
    with keeper.serving("a"):
        keeper.alarm(clock.now() + timedelta(seconds=GRACE / 10), "a", notifications)
    until(lambda: notifications.sent, "a wake-up")


def test_far_alarms_are_left_to_the_tick(keeper: Keeper, notifications: Bells):
    keeper.alarm(
        clock.now() + FARTHEST_ALARM + timedelta(seconds=1), "a", notifications
    )
    assert keeper._alarms == {}


class Napping(Deaf):
    """Hears no wake-ups, but sets alarms as Celery does."""

    ring_at = CeleryNotifier.notify_at
    _ring_for = CeleryNotifier._ring_for


def napper(ctx: durable.Context) -> None:
    ctx.step.sleep("nap", ctx.event.data["seconds"])


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Give a function that sleeps, where alarms are set and wake-ups counted."""
    monkeypatch.setattr(keepers, "_keeper", None)
    with registry.temporary(), notifier.using(Napping()):
        yield durable.function(id="naps")(napper)
        keepers.keeper().stop()


def test_a_worker_that_is_awake_goes_on_with_a_sleep_that_ends(naps: Any):
    first, second = naps.enqueue({"seconds": 0.001}), naps.enqueue({"seconds": 3600})
    drain_queue("default")
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.status, second.status) == ("completed", "waiting")


def test_a_sleep_that_is_due_ends_with_any_bell(naps: Any):
    run = naps.enqueue({"seconds": 3600})
    drain_queue("default")
    Wait.objects.update(due_at=clock.now())
    assert drain_queue("other") == 0
    run.refresh_from_db()
    assert run.status == "queued"


def test_a_bell_that_comes_before_its_moment_is_answered_at_it(
    naps: Any, monkeypatch: pytest.MonkeyPatch
):
    looked: list[datetime] = []
    monkeypatch.setattr(
        "durable_jobs.worker.celery_tasks.drain_queue",
        lambda queue, **options: looked.append(clock.now()),
    )
    moment = clock.now() + timedelta(seconds=LEAD * 0.9)
    work("default", moment.timestamp())
    assert looked[0] >= moment


def test_waits_that_cannot_be_ended_are_put_off(
    naps: Any, monkeypatch: pytest.MonkeyPatch
):
    tried: list[Wait] = []

    def fail(wait: Wait) -> None:
        tried.append(wait)
        raise RuntimeError("broken")

    monkeypatch.setattr(timers, "BATCH", 2)
    monkeypatch.setitem(timers._ENDS, "timeout", fail)
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
