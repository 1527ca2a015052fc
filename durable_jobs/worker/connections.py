"""Database connections that outlive a Celery task.

Celery closes every connection before and after each task, whatever ``CONN_MAX_AGE``
says. The work for one wake-up message is often shorter than opening a connection. So
connections that ``CONN_MAX_AGE`` allows to persist are hidden from Celery at the end
of a task, and restored at the start of the next.
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

#: A connection that was used in the last seconds needs no health check.
FRESH = 5.0


@dataclass(frozen=True, slots=True)
class _SavedConnection:
    """A driver connection with the state that Django had for it."""

    raw: Any
    close_at: float | None
    since: float = field(default_factory=clock.monotonic)


class _Saved(threading.local):
    """The saved connections of this thread, by alias."""

    def __init__(self) -> None:
        self.by_alias: dict[str, _SavedConnection] = {}


_saved = _Saved()


@contextmanager
def persistent() -> Iterator[None]:
    """Keep the connections of the block open until the next such block."""
    for alias in list(_saved.by_alias):
        _restore(connections[alias], _saved.by_alias.pop(alias))
    try:
        yield
    finally:
        for connection in connections.all(initialized_only=True):
            if _may_persist(connection):
                raw, connection.connection = connection.connection, None
                _saved.by_alias[connection.alias] = _SavedConnection(
                    raw, connection.close_at
                )


@contextmanager
def tolerating_outage() -> Iterator[None]:
    """Suppress the errors of the block that mean an unreachable database.

    The outage is logged when it begins, and when a later block succeeds.
    """
    try:
        yield
        db.outage.end()
    except Error as error:
        if not db.is_outage(error):
            raise


def _restore(connection: Any, saved: _SavedConnection) -> None:
    if connection.connection is not None:
        with suppress(connection.Database.Error):
            saved.raw.close()
        return
    connection.connection = saved.raw
    connection.close_at = saved.close_at
    connection.close_if_unusable_or_obsolete()
    if clock.monotonic() - saved.since < FRESH:
        connection.health_check_done = True


def _may_persist(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection is open, usable, and allowed to persist."""
    return not (
        connection.connection is None
        or connection.settings_dict["CONN_MAX_AGE"] == 0
        or depth(connection)
        or connection.errors_occurred
        # The driver's pool keeps its connections open.
        or getattr(connection, "pool", None)
    )
