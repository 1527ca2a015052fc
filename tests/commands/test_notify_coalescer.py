"""Messages of one process in quick succession are coalesced, and none is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from django.db import connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from durable_jobs import clock
from durable_jobs.notifier import BrokerUnavailable
from durable_jobs.worker.celery_notifier import CeleryNotifier
from durable_jobs.worker.notify_coalescer import COALESCE_INTERVAL, NotifyCoalescer
from tests.lab.processes import ROOT, until


class Recorder:
    """Records notifications, and lets a test wait for them."""

    def __init__(self) -> None:
        self.work: list[tuple[str, int]] = []
        self._one = threading.Semaphore(0)

    def __call__(self, queue: str, work: int) -> bool:
        """Record a notification."""
        self.work.append((queue, work))
        self._one.release()
        return True

    def wait(self) -> None:
        """Wait for the next notification."""
        assert self._one.acquire(timeout=30)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which stands still."""
    now = [100.0]
    monkeypatch.setattr(clock, "monotonic", lambda: now[0])
    return now


def test_first_message_is_sent_at_once_and_then_one_for_all_others(
    now: list[float],
):
    recorded = Recorder()
    coalescer = NotifyCoalescer(recorded)

    assert [coalescer.coalesce("a", 1) for _ in range(50)] == [False] + [True] * 49
    recorded.wait()
    assert recorded.work == [("a", 49)]

    assert coalescer.coalesce("a", 3), "the message for later runs counts too"
    recorded.wait()
    assert recorded.work == [("a", 49), ("a", 3)]
    now[0] += COALESCE_INTERVAL
    assert not coalescer.coalesce("a", 1)


def test_each_queue_is_coalesced_separately(now: list[float]):
    coalescer = NotifyCoalescer(Recorder())

    assert [coalescer.coalesce(queue, 1) for queue in "aba"] == [False, False, True]


@pytest.mark.django_db(transaction=True)
def test_notifications_all_fail_while_the_broker_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
):
    """A message that failed covers no later work."""

    def away(*call: object) -> None:
        raise BrokerUnavailable

    sender = CeleryNotifier()
    monkeypatch.setattr(sender, "_send", away)

    for _ in range(3):
        with pytest.raises(BrokerUnavailable):
            sender.notify("a", 1)


def test_coalesced_message_that_failed_covers_no_later_work(now: list[float]):
    asked = threading.Event()

    def ring(queue: str, work: int) -> bool:
        asked.set()
        return False

    coalescer = NotifyCoalescer(ring)
    assert [coalescer.coalesce("a", 1), coalescer.coalesce("a", 1)] == [False, True]

    assert asked.wait(30)
    until(lambda: not coalescer.coalesce("a", 1), "the next to be sent at once")


def test_messages_without_a_thread_are_sent_at_once(
    now: list[float], monkeypatch: pytest.MonkeyPatch
):
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    coalescer = NotifyCoalescer(Recorder())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert [coalescer.coalesce("a", 1) for _ in range(3)] == [False] * 3

    assert coalescer.coalesce("a", 1), "the message is sent once a thread exists"


@pytest.mark.django_db(transaction=True)
def test_sending_thread_leaves_no_connection(now: list[float]):
    used: list[BaseDatabaseWrapper] = []
    recorded = Recorder()

    def ring(queue: str, work: int) -> bool:
        connection.ensure_connection()
        used.append(connections["default"])
        return recorded(queue, work)

    coalescer = NotifyCoalescer(ring)
    assert [coalescer.coalesce("a", 1), coalescer.coalesce("a", 1)] == [False, True]
    recorded.wait()

    until(lambda: used[0].connection is None, "the connection to be closed")
    assert used[0] is not connections["default"]


def test_fork_does_not_wait_for_the_thread_of_its_parent(now: list[float]):
    coalescer = NotifyCoalescer(Recorder())
    assert [coalescer.coalesce("a", 1), coalescer.coalesce("a", 1)] == [False, True]

    child = os.fork()
    if not child:
        os._exit(10 + coalescer.coalesce("a", 1))

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10


def test_program_that_ends_at_once_has_sent_its_last_message():
    program = """
from durable_jobs.worker import notify_coalescer
notify_coalescer.COALESCE_INTERVAL = 2.0  # longer than three calls take
coalescer = notify_coalescer.NotifyCoalescer(
    lambda queue, work: not print(queue, work, flush=True)
)
print(*[coalescer.coalesce("a", 1) for _ in range(3)], flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )

    assert done.stdout == "False True True\na 2\n"
