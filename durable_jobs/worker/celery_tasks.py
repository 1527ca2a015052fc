"""Celery as the engine: its messages are wake-ups, its beat is the clock.

Nothing is lost with a message, and nothing happens twice for a doubled one: tasks are
acknowledged early, never retried, and give no result.
"""

from __future__ import annotations

import math
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
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
    prefork,
    shutdown,
    task_limits,
)
from durable_jobs.worker import watchdog as watchdog_
from durable_jobs.worker.active_tasks import Tasks
from durable_jobs.worker.background import LEAD, keeper
from durable_jobs.worker.broker import NotifyCoalescer
from durable_jobs.worker.celery_app import TICK, is_project_app, project_app
from durable_jobs.worker.publisher import Publisher, impatient_connection
from durable_jobs.worker.queue_loop import SLACK, already_served, drain_queue
from durable_jobs.worker.queues import on_broker, own_queues, served

WORK = "durable_jobs.work"
#: Names what this module connects for a worker.
BUSY = "durable_jobs.busy"
#: How many workers one ring wakes at the most; those that find work ring for more.
MOST_BELLS = 4

#: Other queues that a worker looks at while it serves one for long.
MOST_QUEUES = 8

#: The queues that this worker was told to consume; none outside of a worker.
_consumed: list[str] = []
#: When this process last began to tick.
_ticked_at = -math.inf

_OPTIONS: dict[str, Any] = {
    "ignore_result": True,
    "acks_late": False,
    "max_retries": 0,
    # Flower and event cameras see the project's own tasks only.
    "send_events": False,
}


@shared_task(name=WORK, bind=True, **_OPTIONS)
def work(self: Task[Any, Any], queue: str, rung_at: float = math.inf) -> int:
    """Answer a wake-up: serve a queue for a while.

    One that was rung before this process last looked tells nothing new. One for a
    timer comes a little before its moment, so as not to be late.
    """
    if not isinstance(queue, str) or not isinstance(rung_at, float):
        return 0  # nothing that we sent
    if foreign_messages.passed_on(self, queue, rung_at):
        return 0
    if already_served(queue, rung_at):
        return 0
    ahead = rung_at - clock.now().timestamp()
    if 0 < ahead < SLACK:
        time.sleep(min(ahead, LEAD))
    until = clock.monotonic() + settings.DRAIN_TIME.total_seconds()
    with connections.kept(), connections.surviving(), task_limits.known():
        return drain_queue(
            queue,
            finished=lambda: clock.monotonic() > until or time_limits.near(),
            others=_others(queue),
            timers_first=ahead > 0,
        )
    return 0


def _others(queue: str) -> list[str]:
    """Return queues beside one whose wake-ups this worker hears, chosen by chance."""
    others = [name for name in _consumed if name != queue]
    return random.sample(others, min(len(others), MOST_QUEUES))


@shared_task(name=TICK, bind=True, **_OPTIONS)
def tick(self: Task[Any, Any]) -> dict[str, int]:
    """Do what is due, unless this process just has: ticks may have piled up.

    They do not expire: Celery compares that time with the clock of this machine, which
    need not be right.
    """
    global _ticked_at
    if foreign_messages.passed_on(self):
        return {}
    now = clock.monotonic()
    if now - _ticked_at < settings.TICK_INTERVAL.total_seconds() / 2:
        return {}
    _ticked_at = now
    with connections.kept(), connections.surviving(), task_limits.known():
        return tick_module.tick()
    return {}


class CeleryNotifier:
    """Rings by sending a message to the queue that got work.

    ``channel``: the one Celery queue through which the wake-ups of all go instead.
    """

    manual_clock = False

    def __init__(self, channel: str | None = None) -> None:
        self._channel = channel
        self._publisher = Publisher(lambda: impatient_connection(project_app()))
        self._bursts = NotifyCoalescer(self._ring_gathered)

    def notify(self, queue: str, work: int) -> None:
        """Send as many wake-ups as there are batches to claim, a few at the most.

        Who serves the queue wakes others for what it cannot do itself, at once.
        """
        if _muted():
            return
        if not keeper().serves(queue) and self._bursts.gathers(queue, work):
            return
        try:
            self._ring(queue, work)
        except Exception:
            self._bursts.failed(queue)
            raise

    def _ring(self, queue: str, work: int) -> None:
        notifications = min(math.ceil(work / settings.CLAIM_BATCH), MOST_BELLS)
        self._send(queue, max(1, notifications), clock.now())

    def _ring_gathered(self, queue: str, work: int) -> bool:
        return notifier.try_send(queue, lambda: self._ring(queue, work))

    def _send(self, queue: str, notifications: int, moment: datetime) -> None:
        app, headers = project_app(), foreign_messages.headers()

        def send(producer: Producer) -> None:
            for _ in range(notifications):
                app.send_task(
                    WORK,
                    args=[queue, moment.timestamp()],
                    queue=on_broker(self._channel or queue),
                    producer=producer,
                    retry=False,
                    ignore_result=True,
                    headers=headers,
                )

        self._publisher.publish(send)

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Set an alarm in this process, which executes runs if it gets here."""
        keeper().alarm(moment, queue, self._ring_for)

    def _ring_for(self, queue: str, moment: datetime) -> None:
        """Ring for what is due at a moment that is at hand."""
        if _muted():
            return
        notifier.try_send(queue, lambda: self._send(queue, 1, moment))

    def run_pending(self) -> bool:
        """Execute nothing: the workers do."""
        return False


def _muted() -> bool:
    """Return whether this is a test, which has no business with a broker.

    A test that rolls back must not wake workers, and one without a broker must not wait
    for it. A broker in this process's memory is the test's own.
    """
    if not hasattr(mail, "outbox") or settings.NOTIFY_IN_TESTS:
        return False
    return not str(project_app().conf.broker_url or "").startswith("memory:")


@celeryd_init.connect
def _consume(instance: Any = None, **kwargs: Any) -> None:
    """Let a worker that is told no queues consume ours beside the host's own.

    Its ``-Q`` and ``-X`` are read after this, and have the last word.
    """
    if not is_project_app(instance.app):
        return
    queues = instance.app.amqp.queues
    for name in own_queues():
        # A host that creates no missing queues has declared those that it wants.
        with suppress(KeyError):
            queues.select_add(queues[name])


@celeryd_after_setup.connect
def _note_consumed(instance: Any = None, **kwargs: Any) -> None:
    """Keep what this worker consumes, before there are processes to know it.

    What is added to Celery's queues later, by ringing for one, is not this worker's.
    """
    _consumed[:] = served(instance.app.amqp.queues.consume_from)


@worker_init.connect
@worker_process_init.connect
def _begin(**kwargs: Any) -> None:
    clock.reset()


@worker_init.connect
def _go(**kwargs: Any) -> None:
    shutdown.go()
    # Before there are processes to share it with.
    tasks = Tasks(tempfile.TemporaryFile())  # noqa: SIM115  # it stays with them
    task_prerun.connect(tasks.begin, weak=False, dispatch_uid=BUSY)
    task_postrun.connect(tasks.end, weak=False, dispatch_uid=BUSY)
    prepare = partial(_prepare, tasks)
    celeryd_after_setup.connect(prepare, weak=False, dispatch_uid=BUSY)


def _prepare(tasks: Tasks, instance: Any = None, **kwargs: Any) -> None:
    """Choose, before the pool starts, which process has the watchdog."""
    if not prefork.is_prefork(instance.pool_cls):
        worker_ready.connect(partial(_watch, tasks), weak=False, dispatch_uid=BUSY)
        return
    watch = prefork.Watch(tasks, _consumed)
    signal.signal(prefork.LEAVE, _leave)
    worker_process_init.connect(watch.start, weak=False, dispatch_uid=BUSY)

    def attach(sender: Any, **kwargs: Any) -> None:
        watch.attach(sender, _waiting)

    worker_ready.connect(attach, weak=False, dispatch_uid=BUSY)


@worker_shutting_down.connect
def _stop(**kwargs: Any) -> None:
    shutdown.stop()


def _watch(tasks: Tasks, sender: Any, **kwargs: Any) -> None:
    """Let the worker's main process look after what nobody does."""
    hands = watchdog_.IdleProbe(tasks.any, _waiting)
    if sender.hub is None:
        hands.turns = False
    else:
        sender.hub.call_repeatedly(watchdog_.TURN, hands.turned)
    watchdog = watchdog_.Watchdog(_consumed, hands.idle, _leave)
    task_received.connect(watchdog.heard, weak=False)
    worker_shutting_down.connect(watchdog.stop, weak=False)
    watchdog.start()


def _waiting() -> bool:
    """Tell whether a message is here that no process has begun with."""
    try:
        return any(request.time_start is None for request in state.reserved_requests)
    except RuntimeError:  # one has come or gone meanwhile, in another thread
        return True


def _leave(*signal: object) -> None:
    """Shut the worker down, with an exit code that says why; by force when asked again.

    A main process that is stuck in the broker's connection does not see the request.
    """
    if state.should_stop is not None:
        os._exit(os.EX_UNAVAILABLE)
    state.should_stop = os.EX_UNAVAILABLE  # type: ignore[assignment]  # the stubs know its first value
