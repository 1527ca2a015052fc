"""Joining wake-up messages that follow each other closely.

A message costs more than the row that it is for. A sender of many rows, one by one,
sends a message for the first row, and then one for all rows since, a hundred times a
second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from django.db import connections

from durable_jobs import clock

#: Wake-ups of one queue that follow another in less than so many seconds are one.
CLOSE = 0.01


class NotifyCoalescer:
    """Which wake-ups of this process go with one that is still to be sent.

    ``ring`` sends it, for a queue and so much work, and tells whether that could be
    done. Only a wake-up that was sent stands for others. A thread that does not end
    with the program waits for it, so that a short program's last wake-up is not lost.
    """

    def __init__(self, ring: Callable[[str, int], bool]) -> None:
        self._ring = ring
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._until: dict[str, float] = {}
        self._work: dict[str, int] = {}

    def gathers(self, queue: str, work: int) -> bool:
        """Tell whether a wake-up goes with a later one; else it is to be sent now."""
        now = clock.monotonic()
        if self._pid != os.getpid():  # the thread that was to ring stayed behind
            self._lock = threading.Lock()  # which may have held the lock
            self._forget()
        with self._lock:
            if now >= self._until.get(queue, 0.0):
                self._until[queue] = now + CLOSE
                return False
            waits = queue in self._work
            self._work[queue] = self._work.get(queue, 0) + work
        if waits:
            return True
        try:
            threading.Timer(CLOSE, self.end, [queue]).start()
        except RuntimeError:  # no thread is to be had, or the program is ending
            with self._lock:
                self._work.pop(queue, None)
            return False
        return True

    def failed(self, queue: str) -> None:
        """Let the next wake-up of a queue be sent at once: the last one was not."""
        with self._lock:
            self._until.pop(queue, None)

    def end(self, queue: str) -> None:
        """Ring for all that has gathered."""
        with self._lock:
            work = self._work.pop(queue, 0)
            self._until[queue] = clock.monotonic() + CLOSE
        try:
            if work and not self._ring(queue, work):
                self.failed(queue)
        finally:
            connections.close_all()  # of this thread, which may have asked for the time
