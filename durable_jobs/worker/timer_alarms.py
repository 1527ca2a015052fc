"""Wake-up messages for timers that are due soon.

A timer that is due within ``FARTHEST_ALARM`` does not wait for the tick. The worker
that records the timer sets an alarm. When the alarm is due, the background thread sends
a wake-up message for the queue. No message is sent while a thread of this process
drains the queue, since the thread takes the due alarms between two runs.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from durable_jobs import clock

#: Timers further away than this are left to the tick.
FARTHEST_ALARM = timedelta(seconds=60)
#: How many seconds before its moment a wake-up message is sent: its travel time.
ALARM_LEAD = 0.005
#: How many seconds an alarm waits for a thread that drains its queue.
GRACE = 0.05

#: Sends a wake-up message for a queue and a moment.
Send = Callable[[str, datetime], object]


class TimerAlarms:
    """The alarms of this process, by queue.

    ``changed`` is the condition of the background thread. ``wake_by`` makes the thread
    run by a moment at the latest.
    """

    def __init__(
        self, changed: threading.Condition, wake_by: Callable[[float], object]
    ) -> None:
        self._changed = changed
        self._wake_by = wake_by
        self._alarms: dict[str, list[datetime]] = {}
        self._send: Send | None = None
        self._draining: Counter[str] = Counter()
        #: When a draining thread was last between two runs.
        self._active_at = float("-inf")

    def add(self, moment: datetime, queue: str, send: Send) -> None:
        """Call ``send`` just before ``moment``, unless that is far away."""
        left = moment - clock.now()
        if left > FARTHEST_ALARM:
            return
        with self._changed:
            heapq.heappush(self._alarms.setdefault(queue, []), moment)
            self._send = send
            self._wake_by(clock.monotonic() + left.total_seconds() - ALARM_LEAD)

    @contextmanager
    def draining(self, queue: str) -> Iterator[None]:
        """Leave the alarms of a queue to the calling thread, inside the block."""
        with self._changed:
            self._draining[queue] += 1
            self._active_at = clock.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._draining[queue] -= 1
                if self._alarms.get(queue):
                    self._wake_by(clock.monotonic())

    def is_draining(self, queue: str) -> bool:
        """Return whether a thread of this process drains a queue."""
        return self._draining[queue] > 0

    def record_activity(self) -> None:
        """Record that a draining thread is between two runs."""
        self._active_at = clock.monotonic()

    def take_due(self, queue: str) -> bool:
        """Remove the due alarms of a queue. Return whether there were any."""
        now = clock.now()
        self.record_activity()
        with self._changed:
            return self._remove(queue, now)

    def seconds_to_next(self, queue: str) -> float | None:
        """Return the seconds to the next alarm, or None if a message is as fast."""
        now = clock.now()
        with self._changed:
            alarms = self._alarms.get(queue)
            left = (alarms[0] - now).total_seconds() if alarms else ALARM_LEAD
        return max(0.0, left) if left < ALARM_LEAD else None

    def pause(self) -> float | None:
        """Return the seconds until a message is to be sent, or None.

        The caller holds the lock.
        """
        pauses = [
            max(
                0.0,
                (alarms[0] - clock.now()).total_seconds() - ALARM_LEAD,
                self._grace(queue),
            )
            for queue, alarms in self._alarms.items()
        ]
        return min(pauses, default=None)

    def send_due(self) -> None:
        """Send a wake-up message for each queue with a due alarm."""
        if not self._alarms:
            return
        near = clock.now() + timedelta(seconds=ALARM_LEAD)
        with self._changed:
            send = self._send
            moments = {
                queue: alarms[0]
                for queue, alarms in self._alarms.items()
                if alarms[0] <= near and self._grace(queue) <= 0
            }
            for queue, moment in moments.items():
                self._remove(queue, moment)
        for queue, moment in moments.items():
            assert send is not None, "set with the alarm"
            send(queue, moment)

    def _remove(self, queue: str, until: datetime) -> bool:
        alarms, removed = self._alarms.get(queue, []), False
        while alarms and alarms[0] <= until:
            heapq.heappop(alarms)
            removed = True
        if not alarms:
            self._alarms.pop(queue, None)
        return removed

    def _grace(self, queue: str) -> float:
        """Return how many seconds a queue's alarms still wait for a draining thread."""
        if not self._draining[queue]:
            return 0.0
        return self._active_at + GRACE - clock.monotonic()
