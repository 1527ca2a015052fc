"""Wake-ups: telling executors that a queue has work.

A wake-up carries nothing but the queue's name. Losing one costs the time until the next
tick; ringing one twice costs a query.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

from django.db import connections, transaction

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.error_text import summary_of
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.failpoints import failpoint

logger = logging.getLogger("durable_jobs")


class BrokerUnavailable(Exception):
    """The broker could not be reached a moment ago; nobody asked it again."""


class Notifier(Protocol):
    """Something that makes executors look at a queue.

    ``stands_still``: time goes on only when somebody moves it, so that waiting longer
    for what ``help`` did not do is in vain.
    """

    manual_clock: bool

    def notify(self, queue: str, work: int) -> None:
        """Say that about ``work`` runs became eligible in a queue.

        Raises ``BrokerAway`` where that is known to be in vain.
        """

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Say that a run of a queue is to go on at ``moment``."""

    def run_pending(self) -> bool:
        """Execute something here, if this dispatcher can; tell whether it did."""


_current: Notifier | None = None


def install(dispatcher: Notifier) -> None:
    """Make ``dispatcher`` the one that wake-ups go to."""
    global _current
    _current = dispatcher


def current() -> Notifier:
    """Return the dispatcher."""
    if _current is None:
        msg = "durable_jobs is not ready: 'durable_jobs' must be in INSTALLED_APPS."
        raise ConfigurationError(msg)
    return _current


@contextmanager
def using(dispatcher: Notifier) -> Iterator[None]:
    """Send wake-ups to ``dispatcher`` inside the block."""
    global _current
    previous, _current = _current, dispatcher
    try:
        yield
    finally:
        _current = previous


class _PendingNotifications:
    """The queues to ring when a transaction commits."""

    def __init__(self) -> None:
        self.work: dict[str, int] = {}

    def add(self, queue: str, work: int) -> None:
        self.work[queue] = self.work.get(queue, 0) + work

    def __call__(self) -> None:
        # All the queues together may take as long as one message may.
        end = clock.monotonic() + settings.NOTIFY_TIMEOUT.total_seconds()
        token = _deadline.set(end)
        try:
            for queue, work in self.work.items():
                notify_now(queue, work)
        finally:
            _deadline.reset(token)


#: When the messages after one commit must be sent; None without a commit.
_deadline: ContextVar[float | None] = ContextVar("durable_jobs.deadline", default=None)


def seconds_left(most: float) -> float:
    """Return for how many seconds, at ``most``, a sender may wait for the broker."""
    end = _deadline.get()
    return most if end is None else min(most, end - clock.monotonic())


def notify(queue: str, work: int = 1) -> None:
    """Ring a queue when the transaction commits, at once outside of one.

    One transaction rings each queue once, whatever it did.
    """
    connection = connections[settings.DATABASE]
    if not connection.in_atomic_block:
        notify_now(queue, work)
        return
    for _, function, *_ in connection.run_on_commit:
        if isinstance(function, _PendingNotifications):
            function.add(queue, work)
            return
    notifications = _PendingNotifications()
    notifications.add(queue, work)
    transaction.on_commit(notifications, using=settings.DATABASE, robust=True)


def notify_now(queue: str, work: int = 1) -> bool:
    """Ring a queue; tell whether the wake-up was sent.

    A broker that is away is logged, for the tick rings again.
    """
    return try_send(queue, lambda: current().notify(queue, work))


def try_send(queue: str, send: Callable[[], object]) -> bool:
    """Send a wake-up for a queue by ``send``; tell whether that could be done."""
    try:
        failpoint("ring.begin", queue)
        send()
    except BrokerUnavailable:
        return False
    except Exception as error:  # a wake-up must never fail the work it announces
        logger.warning(
            "Could not ring queue %r; the next tick will. %s",
            queue,
            summary_of(error),
            exc_info=logger.isEnabledFor(logging.DEBUG),
        )
        return False
    return True


def notify_at(moment: datetime, queue: str) -> None:
    """Let a dispatcher that can ring a queue at ``moment``, precisely.

    Only a courtesy: the tick finds every timer.
    """
    try:
        current().notify_at(moment, queue)
    except Exception:  # a wake-up that fails must never fail the work that it announces
        logger.warning("Could not ask for a ring at %s.", moment, exc_info=True)
