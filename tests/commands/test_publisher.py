"""A sender waits for its wake-up message only until a deadline."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kombu import Connection, Producer
from pytest_django import Settings

from durable_jobs import clock, notifier
from durable_jobs.notifier import BrokerUnavailable
from durable_jobs.worker import publisher as publisher_
from durable_jobs.worker.publisher import Publisher
from tests.lab.processes import until


class Broker:
    """Takes messages; ``stuck`` until a test releases it, or ``broken``."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.threads: set[threading.Thread] = set()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.broken: BaseException | None = None

    def taking(self, message: str) -> Callable[[Producer], object]:
        """Return a callable that publishes one message."""

        def send(producer: Producer) -> None:
            self.threads.add(threading.current_thread())
            assert self.goes_on.wait(30)
            if self.broken is not None:
                raise self.broken
            self.messages.append(message)

        return send


@pytest.fixture
def broker() -> Iterator[Broker]:
    """Yield a broker, and check that no thread is left in it."""
    broker = Broker()
    yield broker
    broker.goes_on.set()


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which stands still."""
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def publisher(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Publisher:
    """Return a publisher with a short deadline, whose thread ends soon."""
    settings.DURABLE_JOBS = {"NOTIFY_TIMEOUT": "50ms"}
    monkeypatch.setattr(publisher_, "IDLE", 0.05)
    return Publisher(lambda: Connection("memory://"))


def test_publisher_publishes_before_the_sender_continues(
    publisher: Publisher, broker: Broker, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"NOTIFY_TIMEOUT": "30s"}
    publisher.publish(broker.taking("one"))
    publisher.publish(broker.taking("two"))
    assert broker.messages == ["one", "two"]


def test_publisher_without_a_reply_releases_all_senders(
    publisher: Publisher, broker: Broker, now: list[float]
) -> None:
    broker.goes_on.clear()
    seen: list[type[Exception]] = []

    def send() -> None:
        with pytest.raises((TimeoutError, BrokerUnavailable)) as caught:
            publisher.publish(broker.taking("one"))
        seen.append(caught.type)

    threads = [threading.Thread(target=send) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(seen) == 5
    assert TimeoutError in seen
    for _ in range(100):  # no sender waits any more
        with pytest.raises(BrokerUnavailable):
            publisher.publish(broker.taking("two"))
    assert len(broker.threads) == 1
    assert broker.messages == []


def test_publisher_probes_with_one_message_and_blocks_no_sender(
    publisher: Publisher, broker: Broker, now: list[float]
) -> None:
    broker.broken = ConnectionError("gone")
    with pytest.raises(ConnectionError):
        publisher.publish(broker.taking("one"))
    broker.broken = None
    broker.goes_on.clear()
    now[0] += publisher_.FIRST_PAUSE - 0.1
    with pytest.raises(BrokerUnavailable):
        publisher.publish(broker.taking("early"))
    now[0] += 0.2
    for message in ("probe", "beside", "beside"):
        with pytest.raises(BrokerUnavailable):
            publisher.publish(broker.taking(message))
    broker.goes_on.set()
    until(lambda: broker.messages == ["probe"], "the probe to be taken")
    until(lambda: publisher._probe_at is None, "the probe to count")
    publisher.publish(broker.taking("after"))
    assert broker.messages == ["probe", "after"]


def test_publisher_pauses_longer_after_each_probe_that_fails(
    publisher: Publisher, broker: Broker, now: list[float]
) -> None:
    broker.broken = ConnectionError("gone")
    with pytest.raises(ConnectionError):
        publisher.publish(broker.taking("one"))
    pauses = []
    for _ in range(5):
        assert publisher._probe_at is not None
        at = publisher._probe_at
        pauses.append(at - now[0])
        now[0] = at
        with pytest.raises(BrokerUnavailable):
            publisher.publish(broker.taking("probe"))
        until(lambda at=at: publisher._probe_at != at, "the probe to fail")
    assert pauses == [5.0, 10.0, 20.0, 30.0, 30.0]


def test_wake_up_message_raises_nothing_at_its_sender(
    publisher: Publisher, broker: Broker
) -> None:
    broker.broken = SystemExit(3)
    assert (
        notifier.try_send("a", lambda: publisher.publish(broker.taking("x"))) is False
    )


def test_publisher_shows_receivers_the_context_of_the_sender(
    publisher: Publisher, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"NOTIFY_TIMEOUT": "30s"}
    request = contextvars.ContextVar("request", default="none")
    request.set("ours")
    seen = []
    publisher.publish(lambda producer: seen.append(request.get()))
    assert seen == ["ours"]


def test_publisher_makes_its_connection_anew_after_an_error(
    broker: Broker, now: list[float]
) -> None:
    made: list[Connection] = []

    def connect() -> Connection:
        made.append(Connection("memory://"))
        return made[-1]

    publisher = Publisher(connect)
    publisher.publish(broker.taking("one"))
    broker.broken = ConnectionError("gone")
    with pytest.raises(ConnectionError):
        publisher.publish(broker.taking("two"))
    broker.broken = None
    now[0] += publisher_.FIRST_PAUSE
    with pytest.raises(BrokerUnavailable):
        publisher.publish(broker.taking("three"))
    until(lambda: broker.messages == ["one", "three"], "the probe to be taken")
    assert len(made) == 2


def test_publisher_without_a_thread_publishes_in_the_sender(
    publisher: Publisher, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    publisher.publish(broker.taking("one"))
    assert broker.messages == ["one"]
    assert broker.threads == {threading.current_thread()}


def test_publisher_thread_ends_when_it_is_idle(
    publisher: Publisher, broker: Broker, settings: Settings
) -> None:
    settings.DURABLE_JOBS = {"NOTIFY_TIMEOUT": "30s"}
    publisher.publish(broker.taking("one"))
    (first,) = broker.threads
    first.join(30)
    publisher.publish(broker.taking("two"))
    assert broker.messages == ["one", "two"]
    assert len(broker.threads) == 2


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # as Celery's pool does
def test_publisher_of_a_fork_waits_for_nothing_of_its_parent(
    publisher: Publisher, broker: Broker
) -> None:
    broker.goes_on.clear()
    with pytest.raises(TimeoutError):
        publisher.publish(broker.taking("one"))
    inherited = publisher._connection
    child = os.fork()
    if not child:
        broker.goes_on = threading.Event()
        broker.goes_on.set()
        code = 10
        try:
            publisher.publish(broker.taking("two"))
            own = publisher._connection is not inherited
            code += own and broker.messages == ["two"]
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 11


def test_queues_of_one_commit_share_one_deadline(
    monkeypatch: pytest.MonkeyPatch, now: list[float]
) -> None:
    left: list[float] = []

    class Slow:
        manual_clock = True

        def notify(self, queue: str, work: int) -> None:
            left.append(notifier.seconds_left(1.0))
            now[0] += 0.4

        def notify_at(self, *call: Any) -> None: ...

        def run_pending(self) -> bool:
            return False

    notifications = notifier._PendingNotifications()
    for queue in "abcd":
        notifications.add(queue, 1)
    with notifier.using(Slow()):
        notifications()
    assert left == pytest.approx([1.0, 0.6, 0.2, -0.2])
    assert notifier.seconds_left(1.0) == 1.0
