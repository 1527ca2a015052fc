"""Celery as the executor: its messages wake workers, and its beat runs the tick.

A lost message delays work until the next tick. A duplicate costs one query. So the
tasks are acknowledged early, never retried, and store no result.
"""

from __future__ import annotations

import math
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

from celery import Task, shared_task
from celery.signals import (
    celeryd_after_setup,
    celeryd_init,
    task_postrun,
    task_prerun,
    task_received,
    worker_init,
    worker_process_init,
    worker_ready,
    worker_shutting_down,
)
from celery.worker import state
from django.core import mail
from kombu import Producer

from durable_jobs import clock, notifier
from durable_jobs.conf import settings
from durable_jobs.engine import time_limits
from durable_jobs.maintenance import tick as tick_module
from durable_jobs.worker import (
    connections,
    foreign_messages,
    pools,  # noqa: F401  # connects its receiver
    prefork,
    shutdown,
    task_limits,
    unacknowledged,  # noqa: F401  # connects its receiver
    worker_checks,  # noqa: F401  # connects its receiver
)
from durable_jobs.worker import watchdog as watchdog_module
from durable_jobs.worker.active_tasks import ActiveTasks
from durable_jobs.worker.background import background_thread
from durable_jobs.worker.celery_app import TICK, is_project_app, project_app
from durable_jobs.worker.notify_coalescer import NotifyCoalescer
from durable_jobs.worker.publisher import Publisher, impatient_connection
from durable_jobs.worker.queue_loop import SLACK, already_served, drain_queue
from durable_jobs.worker.queues import broker_name, consumed_queues, project_queues
from durable_jobs.worker.timer_alarms import LEAD

WORK = "durable_jobs.work"
#: The ``dispatch_uid`` of the receivers that this module connects in a worker.
BUSY = "durable_jobs.busy"
#: The most messages that one notification sends. Workers that find work send more.
MAX_MESSAGES = 4

#: How many other queues a worker serves while it drains one queue for long.
MAX_OTHER_QUEUES = 8

#: The queues that this worker consumes. Empty outside of a worker.
_consumed: list[str] = []
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
    if 0 < ahead < SLACK:
        time.sleep(min(ahead, LEAD))
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
    others = [name for name in _consumed if name != queue]
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


@celeryd_init.connect
def _consume(instance: Any = None, **kwargs: Any) -> None:
    """Add the queues of this package to those that a worker consumes by default.

    Celery applies ``-Q`` and ``-X`` afterwards, so they take precedence.
    """
    if not is_project_app(instance.app):
        return
    queues = instance.app.amqp.queues
    for name in project_queues():
        # With task_create_missing_queues=False, only declared queues are consumed.
        with suppress(KeyError):
            queues.select_add(queues[name])


@celeryd_after_setup.connect
def _save_consumed(instance: Any = None, **kwargs: Any) -> None:
    """Save the queues that this worker consumes, before the pool forks.

    Sending a message adds its queue to Celery's queues, so a later reading is wrong.
    """
    _consumed[:] = consumed_queues(instance.app.amqp.queues.consume_from)


@worker_init.connect
@worker_process_init.connect
def _reset_clock(**kwargs: Any) -> None:
    clock.reset()


@worker_init.connect
def _start(**kwargs: Any) -> None:
    shutdown.clear()
    # Before the pool forks, since its processes share the file.
    tasks = ActiveTasks(tempfile.TemporaryFile())  # noqa: SIM115  # open until exit
    task_prerun.connect(tasks.begin, weak=False, dispatch_uid=BUSY)
    task_postrun.connect(tasks.end, weak=False, dispatch_uid=BUSY)
    prepare = partial(_prepare, tasks)
    celeryd_after_setup.connect(prepare, weak=False, dispatch_uid=BUSY)


def _prepare(tasks: ActiveTasks, instance: Any = None, **kwargs: Any) -> None:
    """Choose, before the pool starts, which process runs the watchdog."""
    if not prefork.is_prefork(instance.pool_cls):
        worker_ready.connect(
            partial(_start_watchdog, tasks), weak=False, dispatch_uid=BUSY
        )
        return
    watchdog = prefork.PreforkWatchdog(tasks, _consumed)
    signal.signal(prefork.SHUTDOWN_SIGNAL, _shut_down)
    worker_process_init.connect(watchdog.start, weak=False, dispatch_uid=BUSY)

    def attach(sender: Any, **kwargs: Any) -> None:
        watchdog.attach(sender, _has_reserved)

    worker_ready.connect(attach, weak=False, dispatch_uid=BUSY)


@worker_shutting_down.connect
def _stop(**kwargs: Any) -> None:
    shutdown.request()


def _start_watchdog(tasks: ActiveTasks, sender: Any, **kwargs: Any) -> None:
    """Start the watchdog in the worker's main process."""
    probe = watchdog_module.IdleProbe(tasks.any, _has_reserved)
    if sender.hub is None:
        probe.has_loop = False
    else:
        sender.hub.call_repeatedly(watchdog_module.LOOP_INTERVAL, probe.loop_seen)
    watchdog = watchdog_module.Watchdog(_consumed, probe.idle, _shut_down)
    task_received.connect(watchdog.message_received, weak=False)
    worker_shutting_down.connect(watchdog.stop, weak=False)
    watchdog.start()


def _has_reserved() -> bool:
    """Return whether a received message has not started in any process."""
    try:
        return any(request.time_start is None for request in state.reserved_requests)
    except RuntimeError:  # another thread has changed the set during the iteration
        return True


def _shut_down(*signal: object) -> None:
    """Shut the worker down with exit code ``EX_UNAVAILABLE``.

    A second call exits at once, since a main process that is blocked on a broker
    connection does not see the request.
    """
    if state.should_stop is not None:
        os._exit(os.EX_UNAVAILABLE)
    state.should_stop = os.EX_UNAVAILABLE  # type: ignore[assignment]  # the stubs type it by its first value
