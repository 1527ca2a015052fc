"""The checks of each worker's watchdog, and when a worker counts as unreachable."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from tempfile import TemporaryFile

import pytest

from durable_jobs import clock, durable, notifier
from durable_jobs.maintenance import heartbeats, retention, tick
from durable_jobs.models import Run, Worker
from durable_jobs.testing import Kit
from durable_jobs.worker import watchdog
from durable_jobs.worker.active_tasks import ActiveTasks
from durable_jobs.worker.watchdog import IdleProbe, Watchdog

pytestmark = pytest.mark.django_db


class Broker:
    """Records messages, unless it is unavailable."""

    manual_clock = True

    def __init__(self) -> None:
        self.away = False
        self.messages: list[str] = []

    def notify(self, queue: str, work: int) -> None:
        """Record a message."""
        if self.away:
            raise notifier.BrokerUnavailable
        self.messages.append(queue)

    def notify_at(self, moment: object) -> None:
        """Do nothing."""

    def run_pending(self) -> bool:
        """Do nothing."""
        return False


class Post:
    """A watchdog of the queue ``default``, and the number of its shutdowns."""

    def __init__(self, passing: Callable[[float], None]) -> None:
        self.broker = Broker()
        self.idle = True
        self.left = 0
        self.watchdog = Watchdog(["default"], lambda: self.idle, self._leave)
        self._pass = passing

    def _leave(self) -> None:
        self.left += 1

    def looks(self, *, after: float) -> int:
        """Check after ``after`` seconds; return the number of shutdowns so far."""
        self._pass(after)
        tick.record_tick()
        with notifier.using(self.broker):
            self.watchdog.check()
        return self.left


@pytest.fixture
def post(durable_kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Post:
    """Return a post beside a run that has been ready for an hour."""
    real, ahead = clock.monotonic, 0.0

    def passing(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds
        monkeypatch.setattr(clock, "monotonic", lambda: real() + ahead)

    @durable.function(id="t.old")
    def old(ctx):
        return None

    run = old.enqueue()
    past = clock.now() - timedelta(hours=1)
    Run.objects.filter(pk=run.pk).update(due_at=past, run_order=past)
    return Post(passing)


def test_watchdog_shuts_down_if_its_own_message_does_not_arrive(post: Post):
    assert post.looks(after=watchdog.UNREACHABLE_AFTER - 1) == 0
    assert post.broker.messages == []
    assert post.looks(after=2) == 0
    assert post.broker.messages == ["default"]
    assert post.looks(after=watchdog.UNREACHABLE_AFTER / 4) == 0
    assert post.looks(after=watchdog.UNREACHABLE_AFTER / 2) == 1
    assert post.broker.messages == ["default"]


def test_watchdog_stays_if_any_message_arrives(post: Post):
    post.looks(after=watchdog.UNREACHABLE_AFTER + 1)
    post.watchdog.message_received()
    assert post.looks(after=watchdog.UNREACHABLE_AFTER - 1) == 0
    assert post.looks(after=2) == 0
    assert post.broker.messages == ["default"] * 2


def test_watchdog_stays_while_the_worker_is_busy(post: Post):
    post.looks(after=watchdog.UNREACHABLE_AFTER + 1)
    post.idle = False
    assert post.looks(after=watchdog.UNREACHABLE_AFTER) == 0
    post.idle = True
    assert post.looks(after=1) == 0, "the count starts again"


def test_reserved_messages_count_while_the_main_loop_is_responsive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executes = waits = False
    probe = IdleProbe(lambda: executes, lambda: waits)
    assert probe.idle()
    waits = True
    assert not probe.idle()
    stuck = clock.monotonic() + watchdog.UNREACHABLE_AFTER
    monkeypatch.setattr(clock, "monotonic", lambda: stuck)
    assert probe.idle(), "a blocked loop cannot hand the message out"
    executes = True
    assert not probe.idle(), "a task has no time limit here"
    executes = False
    probe.loop_seen()
    assert not probe.idle()
    probe.has_loop = False
    monkeypatch.setattr(clock, "monotonic", lambda: stuck + watchdog.UNREACHABLE_AFTER)
    assert not probe.idle(), "this broker has no event loop"


@pytest.fixture
def tasks() -> Iterator[ActiveTasks]:
    """Yield the active tasks of a worker."""
    with TemporaryFile() as file:
        yield ActiveTasks(file)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as Celery's pool does
def test_forked_process_is_active_until_its_task_ends_or_it_dies(
    tasks: ActiveTasks,
) -> None:
    assert not tasks.any()
    for ends in (True, False):
        told, tell = os.pipe()
        go, let_go = os.pipe()
        child = os.fork()
        if not child:
            tasks.begin()
            os.write(tell, b"x")
            os.read(go, 1)
            if ends:
                tasks.end()
                os.write(tell, b"x")
                os.read(go, 1)
            os.kill(os.getpid(), signal.SIGKILL)
        os.read(told, 1)
        assert tasks.any()
        os.write(let_go, b"x")
        if ends:
            os.read(told, 1)
            assert not tasks.any()
            os.write(let_go, b"x")
        os.waitpid(child, 0)
        assert not tasks.any()
        for end in (told, tell, go, let_go):
            os.close(end)


def test_process_is_active_until_its_last_task_has_ended(
    tasks: ActiveTasks,
) -> None:
    tasks.begin()
    tasks.begin()
    tasks.end()
    assert tasks.any()
    tasks.end()
    assert not tasks.any()


def test_watchdog_stays_if_the_broker_is_unavailable(post: Post):
    post.broker.away = True
    for _ in range(5):
        assert post.looks(after=watchdog.UNREACHABLE_AFTER) == 0


def test_watchdog_stays_if_the_work_is_not_old(post: Post):
    Run.objects.update(due_at=clock.now())
    for _ in range(5):
        assert post.looks(after=watchdog.UNREACHABLE_AFTER) == 0
    assert post.broker.messages == []


def test_watchdog_ticks_if_the_tick_is_overdue(
    post: Post, monkeypatch: pytest.MonkeyPatch
):
    ticked = []
    monkeypatch.setattr(tick, "tick", lambda: ticked.append(1))
    silent = watchdog.TICK_OVERDUE - 1
    monkeypatch.setattr(tick, "seconds_since_tick", lambda: silent)
    post.watchdog.check()
    assert ticked == []
    silent += 2
    post.watchdog.check()
    assert ticked == [1]


def test_watchdog_records_the_heartbeat_of_the_worker(post: Post) -> None:
    post.looks(after=0)
    (first,) = Worker.objects.filter(kind="worker")
    assert first.queues == ["default"]
    post.looks(after=10)
    assert Worker.objects.get(kind="worker").seen_at == first.seen_at
    with clock.using(clock.VirtualClock(first.seen_at + timedelta(seconds=31))):
        post.looks(after=31)
    assert Worker.objects.get(kind="worker").seen_at > first.seen_at


def test_worker_without_a_heartbeat_for_a_day_is_deleted(durable_kit: Kit) -> None:
    heartbeats.heartbeat("gone", "worker")
    durable_kit.travel_to(durable_kit.now() + timedelta(days=1, minutes=1), run=False)
    heartbeats.heartbeat("here", "worker")
    retention.sweep()
    assert [worker.name for worker in Worker.objects.all()] == ["here"]
