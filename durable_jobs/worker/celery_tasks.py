"""The Celery tasks: a wake-up message starts one, and beat starts the tick.

A lost message delays work until the next tick. A duplicate costs one query. So the
tasks are acknowledged early, never retried, and store no result.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Task, shared_task

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.engine import time_limits
from durable_jobs.maintenance import tick as tick_module
from durable_jobs.worker import connections, foreign_messages, queues, task_limits
from durable_jobs.worker.celery_app import TICK, WORK
from durable_jobs.worker.queue_loop import MAX_CLOCK_SKEW, already_served, drain_queue
from durable_jobs.worker.timer_alarms import ALARM_LEAD

#: How many other queues a worker serves while it drains one queue for long.
MAX_OTHER_QUEUES = 8

#: When this process last started a tick.
_ticked_at = -math.inf

_OPTIONS: dict[str, Any] = {
    "ignore_result": True,
    "acks_late": False,
    "max_retries": 0,
    # Flower and event cameras show the project's own tasks only.
    "send_events": False,
}


@shared_task(name=WORK, bind=True, **_OPTIONS)
def work(self: Task[Any, Any], queue: str, sent_at: float = math.inf) -> int:
    """Drain a queue for at most ``DRAIN_TIME``. Return how many runs were advanced.

    A message is ignored if this process has drained the queue since the message was
    sent. A message for a timer arrives shortly before the timer is due.
    """
    if not isinstance(queue, str) or not isinstance(sent_at, float):
        return 0  # not a message of this package
    if foreign_messages.forward_foreign(self, queue, sent_at):
        return 0
    if already_served(queue, sent_at):
        return 0
    ahead = sent_at - clock.now().timestamp()
    if 0 < ahead < MAX_CLOCK_SKEW:
        time.sleep(min(ahead, ALARM_LEAD))
    until = clock.monotonic() + settings.DRAIN_TIME.total_seconds()
    with _task_scope():
        return drain_queue(
            queue,
            finished=lambda: clock.monotonic() > until or time_limits.nearly_over(),
            others=_others(queue),
            timers_first=ahead > 0,
        )
    return 0


@contextmanager
def _task_scope() -> Iterator[None]:
    with (
        connections.persistent(),
        connections.tolerating_outage(),
        task_limits.respected(),
    ):
        yield


def _others(queue: str) -> list[str]:
    """Return a random choice of the other queues that this worker consumes."""
    others = [name for name in queues.consumed if name != queue]
    return random.sample(others, min(len(others), MAX_OTHER_QUEUES))


@shared_task(name=TICK, bind=True, **_OPTIONS)
def tick(self: Task[Any, Any]) -> dict[str, int]:
    """Tick, unless this process has just ticked: tick messages may have piled up.

    The messages have no expiry, since Celery would compare it with this host's clock,
    which may be wrong.
    """
    global _ticked_at
    if foreign_messages.forward_foreign(self):
        return {}
    now = clock.monotonic()
    if now - _ticked_at < settings.TICK_INTERVAL.total_seconds() / 2:
        return {}
    _ticked_at = now
    with _task_scope():
        return tick_module.tick()
    return {}
