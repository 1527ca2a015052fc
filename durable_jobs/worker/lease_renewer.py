"""Renewal of the leases of all runs that this process executes.

The background thread renews all leases in one transaction, three times per
``LEASE_DURATION``.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.models import Run
from durable_jobs.store import leases


class LeaseRenewer:
    """The leases of this process, and which of them are lost.

    ``changed`` is the condition of the background thread. ``wake_by`` makes the thread
    run by a moment at the latest.
    """

    def __init__(
        self, changed: threading.Condition, wake_by: Callable[[float], object]
    ) -> None:
        self._changed = changed
        self._wake_by = wake_by
        #: Token and last renewal, by the id of the run.
        self._held: dict[uuid.UUID, tuple[uuid.UUID, float]] = {}
        self._lost: set[uuid.UUID] = set()

    @property
    def has_leases(self) -> bool:
        """Whether this process holds any lease."""
        return bool(self._held)

    @contextmanager
    def renewing(self, run: Run) -> Iterator[None]:
        """Renew the lease of a run inside the block."""
        assert run.lease_token is not None, "the run was claimed"
        now = clock.monotonic()
        with self._changed:
            self._held[run.pk] = (run.lease_token, now)
            self._wake_by(now + settings.LEASE_DURATION.total_seconds() / 3)
        try:
            yield
        finally:
            with self._changed:
                self._held.pop(run.pk, None)
                self._lost.discard(run.pk)

    def lost(self, run_id: uuid.UUID) -> bool:
        """Return whether a lease is known to be lost, or was not renewed in time.

        If renewal is overdue, the calling thread renews the leases. This matters on
        SQLite: a thread that writes step after step can starve the background thread.
        """
        if self._overdue(run_id, 0.6):
            self.renew()
        return run_id in self._lost or self._overdue(run_id, 0.9)

    def _overdue(self, run_id: uuid.UUID, part: float) -> bool:
        """Return whether this part of a lease has passed since its last renewal."""
        held = self._held.get(run_id)
        limit = settings.LEASE_DURATION.total_seconds() * part
        return held is not None and clock.monotonic() - held[1] > limit

    def renew(self) -> None:
        """Renew all leases in one statement, and record which of them are lost."""
        now = clock.monotonic()
        with self._changed:
            held = {run_id: token for run_id, (token, _) in self._held.items()}
        if not held:
            return
        renewed = leases.renew(held.items())
        with self._changed:
            for run_id, token in held.items():
                if run_id not in self._held:
                    continue
                if run_id in renewed:
                    self._held[run_id] = (token, now)
                else:
                    self._lost.add(run_id)
