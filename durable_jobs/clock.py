"""The clock: the only module of this package that reads the time.

Hosts compare times that other hosts wrote, so the clock uses the database's time. Each
process reads it once per minute and adds the time of its own monotonic clock. A wall
clock that jumps or is an hour wrong has no effect. With SQLite, the clock uses the
system time.
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
    """A source of the current time, as an aware datetime in UTC."""

    def now(self) -> datetime: ...


class DatabaseClock:
    """The database's time, extrapolated by the monotonic clock of this process."""

    def __init__(self, alias: str = "default") -> None:
        self.alias = alias
        self._lock = threading.Lock()
        self._base: datetime | None = None
        self._at = 0.0

    def now(self) -> datetime:
        """Return the time. Read the database's time if the last reading is too old."""
        elapsed = time.monotonic() - self._at
        if self._base is None or elapsed > RESYNC_SECONDS:
            self._synchronise()
            elapsed = time.monotonic() - self._at
        assert self._base is not None
        return self._base + timedelta(seconds=elapsed)

    def reset(self) -> None:
        """Discard the last reading, after a fork or a change of the database."""
        self._base = None
        self._lock = (
            threading.Lock()
        )  # another thread of the parent may have held the lock

    def _synchronise(self) -> None:
        with self._lock:
            before = time.monotonic()
            base = self._read()
            after = time.monotonic()
            # The database read its clock between the two readings here.
            self._base, self._at = base, (before + after) / 2

    def _read(self) -> datetime:
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
            # Without the database, no times are compared: extrapolate.
            return self._base + timedelta(seconds=time.monotonic() - self._at)
        return moment.astimezone(UTC)


class VirtualClock:
    """A clock that shows a fixed moment until it is changed."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment

    def now(self) -> datetime:
        """Return the fixed moment."""
        return self.moment


_system = DatabaseClock()
_clock: Clock = _system


def now() -> datetime:
    """Return the current time, aware, in UTC."""
    return _clock.now()


def monotonic() -> float:
    """Return seconds for measuring durations in this process."""
    return time.monotonic()


def reset() -> None:
    """Make the next ``now()`` read the database's time again."""
    _system.reset()


@contextmanager
def using(clock: Clock) -> Iterator[None]:
    """Read the time from ``clock`` inside the block."""
    global _clock
    previous, _clock = _clock, clock
    try:
        yield
    finally:
        _clock = previous
