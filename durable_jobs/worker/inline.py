"""The inline executor: runs execute in the process that starts them."""

from __future__ import annotations

import threading
from datetime import datetime

from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.maintenance import tick
from durable_jobs.worker.queue_loop import drain_queue


class InlineNotifier:
    """Executes runs in the thread that notifies, after the commit.

    Runs that wait for a time continue at the next tick or ``run_pending()``, which
    ``run.wait()`` calls.
    """

    manual_clock = False

    def __init__(self) -> None:
        self._state = threading.local()

    def notify(self, queue: str, work: int) -> None:
        """Drain all queues, unless this thread is draining them already."""
        if getattr(self._state, "busy", False):
            self._state.again = True
            return
        self._state.busy = True
        try:
            self._drain(queue)
        finally:
            self._state.busy = False

    def _drain(self, queue: str) -> None:
        while True:
            self._state.again = False
            for name in {queue, settings.QUEUE, *registry.queues()}:
                drain_queue(name)
            if not self._state.again:
                return

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Do nothing: the tick finds due timers."""

    def run_pending(self) -> bool:
        """Tick. Return whether that did any work."""
        return any(tick.tick().values())
