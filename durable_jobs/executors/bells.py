"""Sending bells to the broker without ever waiting long for it.

Celery's own connection goes on trying for seconds while a broker is away. A bell is not
worth that: nothing depends on it, and the tick rings again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery
from kombu import Connection, Producer
from kombu.pools import producers

from durable_jobs import clock
from durable_jobs.dispatch import BrokerAway

#: How many seconds a bell may wait for a connection.
PATIENCE = 1.0
#: How many seconds no bell is sent after one could not be.
SILENCE = 5.0


class Bells:
    """One producer pool for bells, and what is known of the broker's health."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._connection: Connection | None = None

    @contextmanager
    def producer(self, app: Celery) -> Iterator[Producer]:
        """Give a producer; raise at once while the broker is known to be away."""
        if clock.monotonic() < self._silent_until:
            raise BrokerAway
        try:
            # Only the key of a pool, which connects for itself, after a fork as well.
            self._connection = self._connection or _impatient(app)
            pool = producers[self._connection]
            with pool.acquire(block=True, timeout=PATIENCE) as producer:
                yield producer
        except Exception:
            self._silent_until = clock.monotonic() + SILENCE
            raise


def _impatient(app: Celery) -> Connection:
    connection = app.connection_for_write(connect_timeout=PATIENCE)
    connection.transport_options = {
        **(connection.transport_options or {}),
        "max_retries": 1,
        "interval_start": 0,
        "interval_step": 0,
        "connect_retries_timeout": PATIENCE,
    }
    return connection
