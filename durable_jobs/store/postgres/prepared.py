"""Prepared statements, which PostgreSQL plans once per connection.

Planning costs more than the rest of a checkpoint. Django binds values in the client, so
the server parses and plans a new text each time. Here the server binds the values to a
prepared statement.

A connection pool in transaction mode does not support prepared statements. Set
``DISABLE_SERVER_SIDE_CURSORS`` in Django's settings behind such a pool, and nothing is
prepared. Without the setting, the server's first refusal ends preparing in this
process.

A plan made for a small table is slow when the table has grown. Therefore the statements
are prepared again every few seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from durable_jobs import clock
from durable_jobs.store import connection_state, db

if TYPE_CHECKING:
    from psycopg import Connection

logger = logging.getLogger("durable_jobs")

Rows = list[tuple[Any, ...]]

#: SQLSTATEs of refused statements, prepared on another connection or for older tables:
#: duplicate_prepared_statement, feature_not_supported, invalid_sql_statement_name and
#: protocol_violation.
REFUSALS = frozenset({"42P05", "0A000", "26000", "08P01"})

#: Seconds after which statements are prepared again.
REPLAN = 5.0
#: Prepared statements per connection: the current ones and the ones before.
MAX_PREPARED = 32

_refused: set[str] = set()


def fetch(statement: str, values: Sequence[Any]) -> Rows:
    """Execute a statement and return its rows, if any."""
    connection = db.connection()
    if not allowed(connection):
        return _execute(connection, statement, values)
    try:
        return _execute_prepared(connection, statement, values)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) not in REFUSALS:
            raise
        _refused.add(connection.alias)
        logger.warning(
            "Database %r refuses prepared statements, so this process stops using "
            "them. Behind a connection pool in transaction mode, set "
            "DISABLE_SERVER_SIDE_CURSORS. %s",
            connection.alias,
            error,
        )
        if connection.in_atomic_block:
            raise
        return _execute(connection, statement, values)


def allowed(connection: BaseDatabaseWrapper) -> bool:
    """Return whether statements may be prepared on a connection.

    They are not prepared while queries are logged or wrapped, so that all are seen.
    """
    return connection.vendor == "postgresql" and not (
        not connection_state.watched_only(connection)
        or connection.queries_logged
        or connection.alias in _refused
        or connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    )


def _execute(
    connection: BaseDatabaseWrapper, statement: str, values: Sequence[Any]
) -> Rows:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows: Rows = cursor.fetchall() if cursor.description else []
        return rows


def _execute_prepared(
    connection: BaseDatabaseWrapper, statement: str, values: Sequence[Any]
) -> Rows:
    """Do as Django's cursor does, with a cursor that binds values in the server."""
    # Not installed where only SQLite is used.
    from psycopg import Cursor

    connection.close_if_health_check_failed()
    connection.ensure_connection()
    connection.validate_thread_sharing()
    connection.validate_no_broken_transaction()
    raw: Connection[tuple[Any, ...]] = connection.connection
    threshold = raw.prepare_threshold
    text = f"{statement}-- {clock.monotonic() // REPLAN:.0f}"
    with connection.wrap_database_errors:
        if threshold is None:
            # Django disables preparing on the connection. It is enabled only for this
            # statement, so that no other statement is prepared.
            raw.prepare_threshold, raw.prepared_max = 0, MAX_PREPARED
        try:
            cursor: Cursor[tuple[Any, ...]] = Cursor(raw)
            cursor.execute(text, values, prepare=True)
            return cursor.fetchall() if cursor.description else []
        finally:
            raw.prepare_threshold = threshold
