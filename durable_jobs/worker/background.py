"""The background thread of a worker process: it keeps leases, and rings on time.

One thread and one database connection a process, whatever the process executes. It
renews all the leases of the process in one transaction, gives back claimed runs that
were not begun while another one takes long, and rings when a short timer is due and no
thread of this process is about to look.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from django.db import connections

from durable_jobs import clock, notifier
from durable_jobs.conf import settings
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Run
from durable_jobs.store import db, leases

logger = logging.getLogger("durable_jobs")

#: How long claimed runs may wait behind one that is executing.
PATIENCE = 0.25
#: Timers further away than this are left to the tick.
FARTHEST_ALARM = timedelta(seconds=60)
#: So many seconds before an alarm its wake-up is sent, for so long it takes to be
#: heard.
LEAD = 0.005
#: For so many seconds an alarm is left to a thread that goes from run to run.
GRACE = 0.05

#: Sends a wake-up for a queue and a moment.
Bell = Callable[[str, datetime], object]


class ClaimedBatch:
    """Runs that were claimed together; those not begun yet can be given back."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._waiting = list(runs)[::-1]
        self._lock = threading.Lock()
        self.begun_at = clock.monotonic()

    def next(self) -> Run | None:
        """Return the next run to execute."""
        with self._lock:
            self.begun_at = clock.monotonic()
            return self._waiting.pop() if self._waiting else None

    def rest(self) -> list[Run]:
        """Take out all that was not begun."""
        with self._lock:
            rest, self._waiting = self._waiting, []
            return rest

    @property
    def impatient_at(self) -> float | None:
        """When the rest should go to others; None without a rest."""
        return self.begun_at + PATIENCE if self._waiting else None


class Keeper:
    """Keeps what the executing threads of this process hold."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._held: dict[uuid.UUID, tuple[uuid.UUID, float]] = {}
        self._lost: set[uuid.UUID] = set()
        self._batches: list[ClaimedBatch] = []
        self._alarms: dict[str, list[datetime]] = {}
        self._bell: Bell | None = None
        self._serving: Counter[str] = Counter()
        self._moved_at = float("-inf")
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asleep_until = float("-inf")
        self._ends = False

    def stop(self) -> None:
        """End the thread and close its connections; the next lease starts it anew."""
        with self._changed:
            thread, self._ends = self._thread, True
            self._changed.notify()
        if thread is not None:
            thread.join()
        self._thread, self._ends = None, False

    @contextmanager
    def holding(self, run: Run) -> Iterator[None]:
        """Renew a run's lease inside the block."""
        assert run.lease_token is not None, "the run was claimed"
        now = clock.monotonic()
        with self._changed:
            self._held[run.pk] = (run.lease_token, now)
            self._moved_at = now
            self._wake(now + settings.LEASE_DURATION.total_seconds() / 3)
        try:
            yield
        finally:
            with self._changed:
                self._held.pop(run.pk, None)
                self._lost.discard(run.pk)

    def lost(self, run_id: uuid.UUID) -> bool:
        """Tell whether a lease is known to be gone, or could not be renewed in time.

        A thread that asks while renewing is overdue does it itself: on SQLite, one that
        writes step after step can keep the keeper's own thread from ever writing.
        """
        if self._overdue(run_id, 0.6):
            self._renew(clock.monotonic())
        return run_id in self._lost or self._overdue(run_id, 0.9)

    def _overdue(self, run_id: uuid.UUID, part: float) -> bool:
        """Tell whether so large a part of a lease has passed since it was renewed."""
        held = self._held.get(run_id)
        limit = settings.LEASE_DURATION.total_seconds() * part
        return held is not None and clock.monotonic() - held[1] > limit

    @contextmanager
    def watching(self, batch: ClaimedBatch) -> Iterator[None]:
        """Give back what a batch does not begin soon, inside the block."""
        with self._changed:
            self._batches.append(batch)
            self._wake(batch.begun_at + PATIENCE)
        try:
            yield
        finally:
            with self._changed:
                self._batches.remove(batch)

    def alarm(self, moment: datetime, queue: str, bell: Bell) -> None:
        """Let somebody look at a queue at ``moment``, if that is soon.

        A thread that serves it here is told, and needs no wake-up.
        """
        left = moment - clock.now()
        if left > FARTHEST_ALARM:
            return
        with self._changed:
            heapq.heappush(self._alarms.setdefault(queue, []), moment)
            self._bell = bell
            self._wake(clock.monotonic() + left.total_seconds() - LEAD)

    @contextmanager
    def serving(self, queue: str) -> Iterator[None]:
        """Leave the alarms of a queue to this thread, inside the block."""
        with self._changed:
            self._serving[queue] += 1
            self._moved_at = clock.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._serving[queue] -= 1
                if self._alarms.get(queue):
                    self._wake(clock.monotonic())

    def serves(self, queue: str) -> bool:
        """Tell whether a thread of this process serves a queue."""
        return self._serving[queue] > 0

    def alarmed(self, queue: str) -> bool:
        """Take off the alarms of a queue that are due; tell whether there were any."""
        now = clock.now()
        self._moved_at = clock.monotonic()
        with self._changed:
            return self._take(queue, now)

    def soon(self, queue: str) -> float | None:
        """Return in how many seconds an alarm is due, if no wake-up could be faster."""
        now = clock.now()
        with self._changed:
            alarms = self._alarms.get(queue)
            left = (alarms[0] - now).total_seconds() if alarms else LEAD
        return max(0.0, left) if left < LEAD else None

    def _take(self, queue: str, until: datetime) -> bool:
        alarms, taken = self._alarms.get(queue, []), False
        while alarms and alarms[0] <= until:
            heapq.heappop(alarms)
            taken = True
        if not alarms:
            self._alarms.pop(queue, None)
        return taken

    def _wake(self, at: float) -> None:
        """Let the thread look by ``at``; one that will look earlier is left asleep."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._loop, name="durable-keeper", daemon=True
            )
            self._thread.start()
        if at < self._asleep_until:
            self._changed.notify()

    def _loop(self) -> None:
        renew_every = settings.LEASE_DURATION.total_seconds() / 3
        renewed_at = clock.monotonic()
        while True:
            with self._changed:
                if self._ends or not self._held:
                    connections.close_all()  # an idle process needs none of its own
                if self._ends:
                    return
                pause = self._pause(renewed_at + renew_every)
                self._asleep_until = clock.monotonic() + pause
                self._changed.wait(pause)
            try:
                self._give_back()
                self._ring()
                if clock.monotonic() >= renewed_at + renew_every:
                    renewed_at = clock.monotonic()
                    self._renew(renewed_at)
            except Exception as error:  # it must outlive any trouble of the database
                if not db.lost(error):
                    logger.warning("The keeper could not do its work.", exc_info=True)
                connections.close_all()
                threading.Event().wait(1)

    def _pause(self, at: float) -> float:
        """Return the seconds until something is to be done; the lock is held."""
        now = clock.monotonic()
        times = [at]
        times += [b.impatient_at for b in self._batches if b.impatient_at is not None]
        pauses = [max(0.0, time - now) for time in times]
        for queue, alarms in self._alarms.items():
            left = (alarms[0] - clock.now()).total_seconds() - LEAD
            pauses.append(max(0.0, left, self._left_alone(queue)))
        return min(pauses)

    def _left_alone(self, queue: str) -> float:
        """Return for how many seconds a queue's alarms are left to who serves it."""
        if not self._serving[queue]:
            return 0.0
        return self._moved_at + GRACE - clock.monotonic()

    def _give_back(self) -> None:
        now = clock.monotonic()
        with self._changed:
            late = [
                batch
                for batch in self._batches
                if batch.impatient_at is not None and batch.impatient_at <= now
            ]
        for batch in late:
            rest = batch.rest()
            if rest:
                release_batch(rest)

    def _ring(self) -> None:
        """Send a wake-up for each queue with an alarm that nobody here answers."""
        if not self._alarms:
            return
        near = clock.now() + timedelta(seconds=LEAD)
        with self._changed:
            bell = self._bell
            moments = {
                queue: alarms[0]
                for queue, alarms in self._alarms.items()
                if alarms[0] <= near and self._left_alone(queue) <= 0
            }
            for queue, moment in moments.items():
                self._take(queue, moment)
        for queue, moment in moments.items():
            assert bell is not None, "it came with the alarm"
            bell(queue, moment)

    def _renew(self, now: float) -> None:
        with self._changed:
            held = {run_id: token for run_id, (token, _) in self._held.items()}
        if not held:
            return
        kept = leases.renew(held.items())
        with self._changed:
            for run_id, token in held.items():
                if run_id not in self._held:
                    continue
                if run_id in kept:
                    self._held[run_id] = (token, now)
                else:
                    self._lost.add(run_id)


def release_batch(runs: list[Run]) -> None:
    """Return claimed runs that were not begun, and ring for them."""
    token = runs[0].lease_token
    assert token is not None, "the runs were claimed"
    failpoint("lease.giving")
    if leases.release([run.pk for run in runs], token):
        failpoint("lease.given")
        notifier.notify_now(runs[0].queue, len(runs))


_keeper: Keeper | None = None
_lock = threading.Lock()


def _after_fork() -> None:
    """Begin anew in a child, where the lock may be held by no thread that lives."""
    global _keeper, _lock
    _keeper, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def keeper() -> Keeper:
    """Return this process's keeper; a fork gets one of its own."""
    global _keeper
    with _lock:
        if _keeper is None or _keeper.pid != os.getpid():
            _keeper = Keeper()
        return _keeper
