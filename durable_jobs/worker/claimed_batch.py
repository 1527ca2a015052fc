"""Runs that were claimed together, and their release when they wait too long.

A worker claims several runs in one statement and executes them one after another. If
one run takes long, the background thread releases the runs behind it, so that other
workers can execute them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from durable_jobs import clock, notifier
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Run
from durable_jobs.store import leases

#: How many seconds claimed runs may wait behind the run that is executing.
PATIENCE = 0.25


class ClaimedBatch:
    """Runs that were claimed together, in the order of execution."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._waiting = list(runs)[::-1]
        self._lock = threading.Lock()
        self.last_start = clock.monotonic()

    def next(self) -> Run | None:
        """Return the next run to execute, or None."""
        with self._lock:
            self.last_start = clock.monotonic()
            return self._waiting.pop() if self._waiting else None

    def take_rest(self) -> list[Run]:
        """Remove and return all runs that have not started."""
        with self._lock:
            rest, self._waiting = self._waiting, []
            return rest

    @property
    def release_at(self) -> float | None:
        """When to release the runs that have not started; None if there are none."""
        return self.last_start + PATIENCE if self._waiting else None


class BatchReleaser:
    """Releases the runs of all batches of this process that wait too long.

    ``changed`` is the condition of the background thread. ``wake_by`` makes the thread
    run by a moment at the latest.
    """

    def __init__(
        self, changed: threading.Condition, wake_by: Callable[[float], object]
    ) -> None:
        self._changed = changed
        self._wake_by = wake_by
        self._batches: list[ClaimedBatch] = []

    @contextmanager
    def watching(self, batch: ClaimedBatch) -> Iterator[None]:
        """Release runs of the batch that wait too long, inside the block."""
        with self._changed:
            self._batches.append(batch)
            self._wake_by(batch.last_start + PATIENCE)
        try:
            yield
        finally:
            with self._changed:
                self._batches.remove(batch)

    def next_release(self) -> float | None:
        """Return when the first batch is to be released, or None."""
        times = [batch.release_at for batch in self._batches]
        return min((at for at in times if at is not None), default=None)

    def release_late(self) -> None:
        """Release the runs of each batch whose time has come."""
        now = clock.monotonic()
        with self._changed:
            late = [
                batch
                for batch in self._batches
                if batch.release_at is not None and batch.release_at <= now
            ]
        for batch in late:
            rest = batch.take_rest()
            if rest:
                release_batch(rest)


def release_batch(runs: list[Run]) -> None:
    """Release claimed runs that have not started, and notify other workers."""
    token = runs[0].lease_token
    assert token is not None, "the runs were claimed"
    failpoint("lease.release")
    if leases.release_leases([run.pk for run in runs], token):
        failpoint("lease.released")
        notifier.notify_now(runs[0].queue, len(runs))
