"""Coalescing of wake-up messages that are sent in quick succession.

A message costs more than the row that it announces. A sender that commits many rows
one by one sends a message for the first row. Then it sends one message per
``COALESCE_INTERVAL`` seconds for all rows since.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from django.db import connections

from durable_jobs import clock

#: Messages for one queue within this many seconds are coalesced.
COALESCE_INTERVAL = 0.01


class NotifyCoalescer:
    """Decides which wake-up messages of this process wait for the next message.

    ``notify`` sends a message for a queue and a number of runs, and returns whether
    that succeeded. A message that failed delays no others. The waiting message is sent
    by a non-daemon thread, so a short program does not lose its last message.
    """

    def __init__(self, notify: Callable[[str, int], bool]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._until: dict[str, float] = {}
        self._work: dict[str, int] = {}

    def coalesce(self, queue: str, work: int) -> bool:
        """Return whether the next message covers this work; else send one now."""
        now = clock.monotonic()
        if self._pid != os.getpid():  # the thread that sends exists in the parent only
            self._lock = threading.Lock()  # that thread may have held the lock
            self._reset()
        with self._lock:
            if now >= self._until.get(queue, 0.0):
                self._until[queue] = now + COALESCE_INTERVAL
                return False
            waiting = queue in self._work
            self._work[queue] = self._work.get(queue, 0) + work
        if waiting:
            return True
        try:
            threading.Timer(COALESCE_INTERVAL, self.flush, [queue]).start()
        except RuntimeError:  # too many threads, or the program is ending
            with self._lock:
                self._work.pop(queue, None)
            return False
        return True

    def failed(self, queue: str) -> None:
        """Record that a message failed, so that the next one is sent at once."""
        with self._lock:
            self._until.pop(queue, None)

    def flush(self, queue: str) -> None:
        """Send one message for all coalesced work of a queue."""
        with self._lock:
            work = self._work.pop(queue, 0)
            self._until[queue] = clock.monotonic() + COALESCE_INTERVAL
        try:
            if work and not self._notify(queue, work):
                self.failed(queue)
        finally:
            connections.close_all()  # the clock may have used one in this thread
