"""Database connections that outlive a task.

Celery closes every connection before and after each task, whatever ``CONN_MAX_AGE``
says. A wake-up's work is often shorter than opening one: what the host allows to live
on is put aside where Celery does not look, and taken back at the next wake-up.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from durable_jobs import clock
from durable_jobs.store import db
from durable_jobs.store.connection_state import depth

#: A connection that was used so many seconds ago is taken to be alive.
FRESH = 5.0


@dataclass(frozen=True, slots=True)
class _Aside:
    """A connection as the driver knows it, and what Django knew of it."""

    raw: Any
    close_at: float | None
    since: float = field(default_factory=clock.monotonic)


class _Mine(threading.local):
    """What this thread has put aside, by alias."""

    def __init__(self) -> None:
        self.aside: dict[str, _Aside] = {}


_mine = _Mine()


@contextmanager
def kept() -> Iterator[None]:
    """Let the connections inside the block live on from one block to the next."""
    for alias in list(_mine.aside):
        _take_back(connections[alias], _mine.aside.pop(alias))
    try:
        yield
    finally:
        for connection in connections.all(initialized_only=True):
            if _may_live_on(connection):
                raw, connection.connection = connection.connection, None
                _mine.aside[connection.alias] = _Aside(raw, connection.close_at)


@contextmanager
def surviving() -> Iterator[None]:
    """Leave the block without an error while the database is unreachable.

    The outage is logged when it begins and when the block has succeeded again.
    """
    try:
        yield
        db.outage.end()
    except Error as error:
        if not db.lost(error):
            raise


def _take_back(connection: Any, aside: _Aside) -> None:
    if connection.connection is not None:
        with suppress(connection.Database.Error):
            aside.raw.close()
        return
    connection.connection = aside.raw
    connection.close_at = aside.close_at
    connection.close_if_unusable_or_obsolete()
    if clock.monotonic() - aside.since < FRESH:
        connection.health_check_done = True


def _may_live_on(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether a connection is open, in order, and allowed to stay so."""
    return not (
        connection.connection is None
        or connection.settings_dict["CONN_MAX_AGE"] == 0
        or depth(connection)
        or connection.errors_occurred
        # The driver's pool keeps connections by itself.
        or getattr(connection, "pool", None)
    )
