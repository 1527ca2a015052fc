"""Wake-up messages, which notify workers that a queue has work.

A wake-up message holds only the name of the queue. A lost message delays work until the
next tick. A duplicate costs one query.
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
    """The broker was unreachable a moment ago, and was not tried again."""


class Notifier(Protocol):
    """A way to notify workers of work in a queue.

    ``manual_clock``: only the test moves the time, so that waiting longer than
    ``run_pending`` does not help.
    """

    manual_clock: bool

    def notify(self, queue: str, work: int) -> None:
        """Notify workers that about ``work`` runs became eligible in a queue.

        Raise ``BrokerUnavailable`` if the broker is known to be unreachable.
        """

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Request a wake-up message for a queue at ``moment``."""

    def run_pending(self) -> bool:
        """Execute pending runs here, if supported; return whether any ran."""


_installed: Notifier | None = None


def install(notifier: Notifier) -> None:
    """Set the notifier of this process."""
    global _installed
    _installed = notifier


def installed() -> Notifier:
    """Return the notifier of this process."""
    if _installed is None:
        msg = "durable_jobs is not ready: 'durable_jobs' must be in INSTALLED_APPS."
        raise ConfigurationError(msg)
    return _installed


@contextmanager
def using(notifier: Notifier) -> Iterator[None]:
    """Use ``notifier`` inside the block."""
    global _installed
    previous, _installed = _installed, notifier
    try:
        yield
    finally:
        _installed = previous


class _PendingNotifications:
    """The queues to notify when a transaction commits."""

    def __init__(self) -> None:
        self.work: dict[str, int] = {}

    def add(self, queue: str, work: int) -> None:
        self.work[queue] = self.work.get(queue, 0) + work

    def __call__(self) -> None:
        # The timeout applies to all queues together.
        end = clock.monotonic() + settings.NOTIFY_TIMEOUT.total_seconds()
        token = _deadline.set(end)
        try:
            for queue, work in self.work.items():
                notify_now(queue, work)
        finally:
            _deadline.reset(token)


#: The deadline for the messages after a commit, or None without a commit.
_deadline: ContextVar[float | None] = ContextVar("durable_jobs.deadline", default=None)


def seconds_left(most: float) -> float:
    """Return how long a sender may wait for the broker, at most ``most`` seconds."""
    end = _deadline.get()
    return most if end is None else min(most, end - clock.monotonic())


def notify(queue: str, work: int = 1) -> None:
    """Notify a queue when the transaction commits, or at once without a transaction.

    A transaction notifies each queue once.
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
    """Notify a queue; return whether the wake-up message was sent.

    An unreachable broker is logged. The next tick notifies the queue again.
    """
    return try_send(queue, lambda: installed().notify(queue, work))


def try_send(queue: str, send: Callable[[], object]) -> bool:
    """Send a wake-up message with ``send``; return whether it was sent."""
    try:
        failpoint("notify.begin", queue)
        send()
    except BrokerUnavailable:
        return False
    except Exception as error:  # a failed wake-up must not fail the work
        logger.warning(
            "Could not notify queue %r. The next tick notifies it again. %s",
            queue,
            summary_of(error),
            exc_info=logger.isEnabledFor(logging.DEBUG),
        )
        return False
    return True


def notify_at(moment: datetime, queue: str) -> None:
    """Request a wake-up message for a queue at ``moment``, if supported.

    It is more precise than the tick, which finds every timer anyway.
    """
    try:
        installed().notify_at(moment, queue)
    except Exception:  # a failed wake-up must not fail the work
        logger.warning("Could not request a wake-up at %s.", moment, exc_info=True)
