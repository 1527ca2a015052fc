"""Wake-up messages through Celery.

A lost message delays work until the next tick. A duplicate costs one query.
"""

from __future__ import annotations

import math
from datetime import datetime

from django.core import mail
from kombu import Producer

from durable_jobs import clock, notifier
from durable_jobs.conf import settings
from durable_jobs.worker import foreign_messages
from durable_jobs.worker.background import background_thread
from durable_jobs.worker.celery_app import WORK, project_app
from durable_jobs.worker.notify_coalescer import NotifyCoalescer
from durable_jobs.worker.publisher import Publisher, impatient_connection
from durable_jobs.worker.queues import broker_name

#: The most messages that one notification sends. Workers that find work send more.
MAX_MESSAGES = 4


class CeleryNotifier:
    """Sends a wake-up message through the Celery queue that has work.

    ``channel``: one Celery queue that carries the messages of all queues instead.
    """

    manual_clock = False

    def __init__(self, channel: str | None = None) -> None:
        self._channel = channel
        self._publisher = Publisher(lambda: impatient_connection(project_app()))
        self._coalescer = NotifyCoalescer(self._notify_coalesced)

    def notify(self, queue: str, work: int) -> None:
        """Send one message per batch of runs, at most ``MAX_MESSAGES``.

        A thread that drains the queue sends its messages at once: they announce work
        for other workers.
        """
        if _disabled():
            return
        draining = background_thread().alarms.is_draining(queue)
        if not draining and self._coalescer.coalesce(queue, work):
            return
        try:
            self._notify(queue, work)
        except Exception:
            self._coalescer.failed(queue)
            raise

    def _notify(self, queue: str, work: int) -> None:
        messages = min(math.ceil(work / settings.CLAIM_BATCH), MAX_MESSAGES)
        self._send(queue, max(1, messages), clock.now())

    def _notify_coalesced(self, queue: str, work: int) -> bool:
        return notifier.try_send(queue, lambda: self._notify(queue, work))

    def _send(self, queue: str, messages: int, moment: datetime) -> None:
        app, headers = project_app(), foreign_messages.headers()

        def send(producer: Producer) -> None:
            for _ in range(messages):
                app.send_task(
                    WORK,
                    args=[queue, moment.timestamp()],
                    queue=broker_name(self._channel or queue),
                    producer=producer,
                    retry=False,
                    ignore_result=True,
                    headers=headers,
                )

        self._publisher.publish(send)

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Set an alarm in this process, which is a worker."""
        background_thread().alarms.add(moment, queue, self._notify_due)

    def _notify_due(self, queue: str, moment: datetime) -> None:
        """Send a message for the timers that are due at ``moment``."""
        if _disabled():
            return
        notifier.try_send(queue, lambda: self._send(queue, 1, moment))

    def run_pending(self) -> bool:
        """Do nothing: the workers execute runs."""
        return False


def _disabled() -> bool:
    """Return whether to send no messages, because this process runs tests.

    A test that rolls back must not wake workers, and a test without a broker must not
    wait for one. An in-memory broker belongs to the test, so it gets messages.
    """
    if not hasattr(mail, "outbox") or settings.NOTIFY_IN_TESTS:
        return False
    return not str(project_app().conf.broker_url or "").startswith("memory:")
