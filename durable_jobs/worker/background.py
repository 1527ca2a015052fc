"""The background thread of a worker process.

The thread renews leases, releases claimed runs that wait too long, and sends wake-up
messages for timers. There is one such thread, with one database connection, per
process, however many threads execute runs.
"""

from __future__ import annotations

import logging
import os
import threading

from django.db import connections

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.store import db
from durable_jobs.worker.claimed_batch import BatchReleaser
from durable_jobs.worker.lease_renewer import LeaseRenewer
from durable_jobs.worker.timer_alarms import TimerAlarms

logger = logging.getLogger("durable_jobs")


class BackgroundThread:
    """Runs the background work of this process in a thread that starts on demand."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._asleep_until = float("-inf")
        self._stopping = False
        self.leases = LeaseRenewer(self._changed, self._wake_by)
        self.batches = BatchReleaser(self._changed, self._wake_by)
        self.alarms = TimerAlarms(self._changed, self._wake_by)

    def stop(self) -> None:
        """End the thread and close its connections. The next lease starts another."""
        with self._changed:
            thread, self._stopping = self._thread, True
            self._changed.notify()
        if thread is not None:
            thread.join()
        self._thread, self._stopping = None, False

    def _wake_by(self, at: float) -> None:
        """Make the thread run by ``at``, unless it wakes earlier. The lock is held."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._loop, name="durable-background", daemon=True
            )
            self._thread.start()
        if at < self._asleep_until:
            self._changed.notify()

    def _loop(self) -> None:
        renew_every = settings.LEASE_DURATION.total_seconds() / 3
        renewed_at = clock.monotonic()
        while True:
            with self._changed:
                if self._stopping or not self.leases.has_leases:
                    connections.close_all()  # an idle process needs no connection
                if self._stopping:
                    return
                pause = self._pause(renewed_at + renew_every)
                self._asleep_until = clock.monotonic() + pause
                self._changed.wait(pause)
            try:
                self.batches.release_late()
                self.alarms.send_due()
                if clock.monotonic() >= renewed_at + renew_every:
                    renewed_at = clock.monotonic()
                    self.leases.renew()
            except Exception as error:  # the thread must survive database errors
                if not db.is_outage(error):
                    logger.warning("The background thread failed.", exc_info=True)
                connections.close_all()
                threading.Event().wait(1)

    def _pause(self, renew_at: float) -> float:
        """Return the seconds until the next work. The lock is held."""
        now = clock.monotonic()
        pauses = [max(0.0, renew_at - now)]
        release_at = self.batches.next_release()
        if release_at is not None:
            pauses.append(max(0.0, release_at - now))
        alarm = self.alarms.pause()
        if alarm is not None:
            pauses.append(alarm)
        return min(pauses)


_background: BackgroundThread | None = None
_lock = threading.Lock()


def _after_fork() -> None:
    """Start anew in a child: a thread that does not exist there may hold the lock."""
    global _background, _lock
    _background, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def background_thread() -> BackgroundThread:
    """Return the background thread of this process. A forked process has its own."""
    global _background
    with _lock:
        if _background is None or _background.pid != os.getpid():
            _background = BackgroundThread()
        return _background
