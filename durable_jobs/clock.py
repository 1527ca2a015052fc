"""The one clock. Nothing else in the project asks for the time.

Rows written by one machine are compared by another, so the time that counts is the
database's. Asking it costs a round trip, so each process asks once a minute, and goes
on from the answer by its own monotonic clock: a wall clock that jumps, or that is an
hour wrong, changes nothing. SQLite lives on this machine; there the system clock is
asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol

from django.db import connections
from django.db.utils import Error as DatabaseError

RESYNC_SECONDS = 60.0


class Clock(Protocol):
    """Something that tells an aware UTC time."""

    def now(self) -> datetime: ...


class DatabaseClock:
    """The database's time, carried on by this process's monotonic clock."""

    def __init__(self, alias: str = "default") -> None:
        self.alias = alias
        self._lock = threading.Lock()
        self._base: datetime | None = None
        self._at = 0.0

    def now(self) -> datetime:
        """Return the time, asking the database when the last answer is a minute old."""
        elapsed = time.monotonic() - self._at
        if self._base is None or elapsed > RESYNC_SECONDS:
            self._synchronise()
            elapsed = time.monotonic() - self._at
        assert self._base is not None
        return self._base + timedelta(seconds=elapsed)

    def reset(self) -> None:
        """Forget the last answer (after a fork, or when the database moved)."""
        self._base = None
        self._lock = threading.Lock()  # a forked process may have found it taken

    def _synchronise(self) -> None:
        with self._lock:
            before = time.monotonic()
            base = self._ask()
            after = time.monotonic()
            # The answer was true somewhere between the two readings.
            self._base, self._at = base, (before + after) / 2

    def _ask(self) -> datetime:
        connection = connections[self.alias]
        if connection.vendor != "postgresql" or connection.needs_rollback:
            return datetime.now(UTC)
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT clock_timestamp()")
                moment: datetime = cursor.fetchone()[0]
        except DatabaseError:
            if self._base is None:
                raise
            # An unreachable database cannot be compared with anyway: carry on.
            return self._base + timedelta(seconds=time.monotonic() - self._at)
        return moment.astimezone(UTC)


class VirtualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        """Return the moment it stands at."""
        return self.moment


_system = DatabaseClock()
_current: Clock = _system


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return _current.now()


def monotonic() -> float:
    """Return seconds for measuring how long something took here."""
    return time.monotonic()


def reset() -> None:
    """Make the next reading ask the database again."""
    _system.reset()


@contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Read the time from ``clock`` inside the block."""
    global _current
    previous, _current = _current, clock
    try:
        yield
    finally:
        _current = previous
