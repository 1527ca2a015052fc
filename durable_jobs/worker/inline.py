"""An executor without a broker: what is rung for is executed here, at once."""

from __future__ import annotations

import threading
from datetime import datetime

from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.maintenance import tick
from durable_jobs.worker.queue_loop import drain_queue


class InlineNotifier:
    """Executes runs in the process and thread that rings, after its commit.

    What waits for a time goes on when somebody calls ``help`` (as ``run.wait()`` does)
    or ticks.
    """

    manual_clock = False

    def __init__(self) -> None:
        self._state = threading.local()

    def notify(self, queue: str, work: int) -> None:
        """Execute what is eligible in a queue, unless that is being done below."""
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
        """Do nothing: times are looked at when somebody ticks."""

    def run_pending(self) -> bool:
        """Tick; tell whether that executed anything."""
        return any(tick.tick().values())
