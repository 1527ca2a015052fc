"""The watchdog: a thread of each worker that detects a missing tick and a dead broker.

In a prefork worker it is a thread of one child process (see ``prefork``).

An idle worker depends on wake-up messages, and a broker connection can be dead without
an error. So each worker checks the database every ``CHECK_INTERVAL`` seconds:

- If no process ticks, the worker ticks itself.
- If runs have been ready for long, the worker is idle, and its own wake-up message does
  not arrive, the worker exits. The process supervisor starts it again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta

from django.db import connections

from durable_jobs import clock, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.maintenance import heartbeats, missing_functions, tick
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, left_work
from durable_jobs.worker.queue_loop import worker_name

logger = logging.getLogger("durable_jobs")

#: Seconds between two checks.
CHECK_INTERVAL = 10.0
#: Seconds between two heartbeats of the worker.
HEARTBEAT_INTERVAL = 30.0
#: A worker ticks itself if the last tick is older than this many seconds.
TICK_OVERDUE = 30.0
#: A worker is unreachable if it is idle, receives no message, and runs have been ready
#: for this many seconds.
UNREACHABLE_AFTER = 60.0
#: Seconds between two signs that the worker's main loop is responsive.
LOOP_INTERVAL = 1.0


class IdleProbe:
    """Whether a worker is idle.

    ``executing`` returns whether a process of the worker executes a task. ``reserved``
    returns whether a received message has not started yet. Reserved messages count as
    work only while the main loop is responsive. A loop blocked on a dead broker
    connection cannot hand them out.
    """

    def __init__(
        self, executing: Callable[[], bool], reserved: Callable[[], bool]
    ) -> None:
        self._executing, self._reserved = executing, reserved
        self._loop_seen_at = clock.monotonic()
        #: Whether the main loop reports by ``loop_seen()``.
        self.has_loop = True

    def loop_seen(self, at: float | None = None) -> None:
        """Record that the main loop is responsive, or was at ``at``."""
        self._loop_seen_at = clock.monotonic() if at is None else at

    def idle(self) -> bool:
        """Return whether no task is executing or about to start."""
        if self._executing():
            return False
        silent = clock.monotonic() - self._loop_seen_at
        blocked = self.has_loop and silent >= UNREACHABLE_AFTER
        return blocked or not self._reserved()


class Watchdog:
    """Checks the database in a thread until it is stopped.

    It records the heartbeat of the worker under ``name``. ``idle`` returns whether the
    worker is idle. ``shut_down`` ends the worker.
    """

    def __init__(
        self,
        queues: Sequence[str],
        idle: Callable[[], bool],
        shut_down: Callable[[], object],
        name: str = "",
    ) -> None:
        self._name = name or worker_name()
        self._queues = list(queues)
        self._heartbeat_at: float | None = None
        self._idle = idle
        self._shut_down = shut_down
        self._message_at = clock.monotonic()
        self._notified_at: float | None = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        thread = threading.Thread(
            target=self._loop, name="durable-watchdog", daemon=True
        )
        thread.start()

    def stop(self, **kwargs: object) -> None:
        """End the thread after the current check."""
        self._stopped.set()

    def message_received(self, **kwargs: object) -> None:
        """Record that a message has arrived."""
        self._message_at = clock.monotonic()
        self._notified_at = None

    def _loop(self) -> None:
        self._guarded(self._heartbeat)
        self._guarded(lambda: missing_functions.began(self._queues))
        while not self._stopped.wait(CHECK_INTERVAL):
            self._guarded(self.check)
        self._guarded(self._deregister)

    def _deregister(self) -> None:
        heartbeats.deregister(self._name)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
            db.outage.end()
        except Exception as error:  # the thread must survive database errors
            if not db.is_outage(error):
                logger.warning("A check of the watchdog failed.", exc_info=True)
        finally:
            # A process that is forked between two checks must not share a connection.
            connections.close_all()

    def _heartbeat(self) -> None:
        now = clock.monotonic()
        if self._heartbeat_at is None or now - self._heartbeat_at >= HEARTBEAT_INTERVAL:
            if self._heartbeat_at is None:
                heartbeats.deregister(self._name)  # of an earlier process
            heartbeats.heartbeat(self._name, "worker", self._queues, registry.ids())
            self._heartbeat_at = now

    def check(self) -> None:
        """Tick if the tick is overdue, exit if unreachable, record the heartbeat."""
        if tick.seconds_since_tick() > TICK_OVERDUE:
            tick.tick()
        if self._unreachable():
            logger.error(
                "Runs have been ready for more than %.0f s, but this idle worker "
                "receives no messages from the broker. It exits, to be started again.",
                UNREACHABLE_AFTER,
            )
            self._shut_down()
        self._heartbeat()  # last, since a failed write must not prevent the rest

    def _unreachable(self) -> bool:
        """Notify for old work. Return whether an earlier message has not arrived."""
        now = clock.monotonic()
        queue = self._old_work() if self._idle() else None
        if queue is None or now - self._message_at < UNREACHABLE_AFTER:
            self._notified_at = None
            return False
        if self._notified_at is not None:
            return now - self._notified_at > UNREACHABLE_AFTER / 2
        # A message that cannot be sent proves nothing: Celery reconnects.
        if notifier.notify_now(queue):
            self._notified_at = now
        return False

    def _old_work(self) -> str | None:
        """Return a queue of this worker with a run that has been ready for long."""
        ready = db.rows(Run).filter(
            queue__in=self._queues,
            function__in=registry.ids(),
            status=RunStatus.QUEUED,
            backlog__isnull=True,
            due_at__lte=clock.now() - timedelta(seconds=UNREACHABLE_AFTER),
        )
        ready = ready.exclude(pk__in=left_work.needing_newer_version().values("run_id"))
        return ready.values_list("queue", flat=True).first()
