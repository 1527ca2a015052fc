"""The thread of a worker that looks after what nobody does.

In a prefork worker it is a thread of one child (``prefork``), else of the process.

A worker that rests is woken by wake-ups, and those it hears by a connection to the
broker which can be dead without anybody noticing. So each worker looks into the
database now and then: it ticks where nobody does, and ends itself when work is old, it
has nothing to do and its own wake-up does not reach it. Whatever runs the worker starts
it again.
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
from durable_jobs.store import db
from durable_jobs.worker.queue_loop import worker_name

logger = logging.getLogger("durable_jobs")

#: Seconds between two looks.
EVERY = 10.0
#: Seconds between two words that the worker leaves.
NOTED = 30.0
#: A worker ticks itself when nobody has for so many seconds.
MISSED = 30.0
#: How many seconds work may be ready, and a wake-up unheard, before a worker is deaf.
UNREACHABLE_AFTER = 60.0


#: Seconds between two signs that a worker's main loop turns.
TURN = 1.0


class IdleProbe:
    """Whether a worker has nothing in its hands.

    ``executes`` tells whether a process of it is inside a task, ``waits`` whether a
    message is here that none has begun with. Such a one counts while the main loop
    ``turns``: one that is stuck in a dead connection gives nothing to anybody.
    """

    def __init__(self, executes: Callable[[], bool], waits: Callable[[], bool]) -> None:
        self._executes, self._waits = executes, waits
        self._turned_at = clock.monotonic()
        #: Whether there is a loop that says so.
        self.turns = True

    def turned(self, at: float | None = None) -> None:
        """Take note that the main loop turns, or when it did."""
        self._turned_at = clock.monotonic() if at is None else at

    def idle(self) -> bool:
        """Tell whether nothing is executed, and nothing is about to be."""
        if self._executes():
            return False
        stuck = self.turns and clock.monotonic() - self._turned_at >= UNREACHABLE_AFTER
        return stuck or not self._waits()


class Watchdog:
    """Looks around until it is stopped.

    It leaves word that the worker is there, under its ``name``. ``idle`` tells whether
    the worker has nothing to do, ``leave`` lets it end.
    """

    def __init__(
        self,
        queues: Sequence[str],
        idle: Callable[[], bool],
        leave: Callable[[], object],
        name: str = "",
    ) -> None:
        self._name = name or worker_name()
        self._queues = list(queues)
        self._noted_at: float | None = None
        self._idle = idle
        self._leave = leave
        self._heard_at = clock.monotonic()
        self._rung_at: float | None = None
        self._ends = threading.Event()

    def start(self) -> None:
        """Look from now on, in a thread of its own."""
        thread = threading.Thread(target=self._loop, name="durable-patrol", daemon=True)
        thread.start()

    def stop(self, **kwargs: object) -> None:
        """Look no more."""
        self._ends.set()

    def heard(self, **kwargs: object) -> None:
        """Take note that a message has arrived."""
        self._heard_at = clock.monotonic()
        self._rung_at = None

    def _loop(self) -> None:
        self._guarded(self._note)
        self._guarded(lambda: missing_functions.began(self._queues))
        while not self._ends.wait(EVERY):
            self._guarded(self.look)
        self._guarded(self._forget)

    def _forget(self) -> None:
        heartbeats.deregister(self._name)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
            db.outage.end()
        except Exception as error:  # it must outlive any trouble of the database
            if not db.lost(error):
                logger.warning("The worker could not look around.", exc_info=True)
        finally:
            # A process that is forked meanwhile must not share a connection.
            connections.close_all()

    def _note(self) -> None:
        now = clock.monotonic()
        if self._noted_at is None or now - self._noted_at >= NOTED:
            if self._noted_at is None:
                heartbeats.deregister(self._name)  # of an earlier process of this name
            heartbeats.heartbeat(self._name, "worker", self._queues, registry.ids())
            self._noted_at = now

    def look(self) -> None:
        """Do what nobody does, and leave word."""
        if tick.seconds_since_tick() > MISSED:
            tick.tick()
        if self._rings_in_vain():
            logger.error(
                "Runs have been ready for more than %.0f s, this worker has nothing to "
                "do, and no message reaches it: it ends, to be started again.",
                UNREACHABLE_AFTER,
            )
            self._leave()
        self._note()  # last: what is written here is in nobody's way

    def _rings_in_vain(self) -> bool:
        """Ring for old work, and tell whether an earlier wake-up has not been heard."""
        now = clock.monotonic()
        queue = self._old_work() if self._idle() else None
        if queue is None or now - self._heard_at < UNREACHABLE_AFTER:
            self._rung_at = None
            return False
        if self._rung_at is not None:
            return now - self._rung_at > UNREACHABLE_AFTER / 2
        # One that cannot be sent says nothing: Celery connects again by itself.
        if notifier.notify_now(queue):
            self._rung_at = now
        return False

    def _old_work(self) -> str | None:
        """Return a queue of this worker in which a run has been ready for long."""
        ready = db.rows(Run).filter(
            queue__in=self._queues,
            function__in=registry.ids(),
            status=RunStatus.QUEUED,
            backlog__isnull=True,
            due_at__lte=clock.now() - timedelta(seconds=UNREACHABLE_AFTER),
        )
        return ready.values_list("queue", flat=True).first()
