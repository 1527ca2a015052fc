"""Statements that PostgreSQL plans once a connection, not once a call.

Planning costs more than all the rest of a checkpoint. Django binds values in the
client, so the server meets a new text each time; here they are bound in the server, to
a prepared statement.

A pool that hands out connections by the transaction knows no prepared statements. A
host that has one tells Django by ``DISABLE_SERVER_SIDE_CURSORS``, and nothing is
prepared. Where it did not, the server's first refusal ends preparing in this process.

A plan that was made when a table was small reads all of it when it has grown, so every
few seconds the statements are prepared anew.
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

#: How a server refuses a statement that was prepared elsewhere, or for older tables:
#: duplicate_prepared_statement, feature_not_supported, invalid_sql_statement_name and
#: protocol_violation.
REFUSALS = frozenset({"42P05", "0A000", "26000", "08P01"})

#: For how many seconds a plan is good.
REPLAN = 5.0
#: Statements that stay prepared on a connection: today's plans and the ones before.
MOST = 32

_refused: set[str] = set()


def fetch(statement: str, values: Sequence[Any]) -> Rows:
    """Execute one of our own statements and return its rows, if it gives any."""
    connection = db.connection()
    if not allowed(connection):
        return _plainly(connection, statement, values)
    try:
        return _prepared(connection, statement, values)
    except DatabaseError as error:
        if getattr(error.__cause__, "sqlstate", None) not in REFUSALS:
            raise
        _refused.add(connection.alias)
        logger.warning(
            "Database %r refuses prepared statements, so this process does without. "
            "Behind a pool by the transaction, set DISABLE_SERVER_SIDE_CURSORS. %s",
            connection.alias,
            error,
        )
        if connection.in_atomic_block:
            raise
        return _plainly(connection, statement, values)


def allowed(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether host and server let us; who watches queries sees them all."""
    return connection.vendor == "postgresql" and not (
        not connection_state.watched_only(connection)
        or connection.queries_logged
        or connection.alias in _refused
        or connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    )


def _plainly(
    connection: BaseDatabaseWrapper, statement: str, values: Sequence[Any]
) -> Rows:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        rows: Rows = cursor.fetchall() if cursor.description else []
        return rows


def _prepared(
    connection: BaseDatabaseWrapper, statement: str, values: Sequence[Any]
) -> Rows:
    """Do what Django's cursor does, around a cursor that binds in the server."""
    # On SQLite, a machine without PostgreSQL's library cannot import this.
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
            # Django switches preparing off for the connection, and so for its own
            # queries: all that is prepared is ours.
            raw.prepare_threshold, raw.prepared_max = 0, MOST
        try:
            cursor: Cursor[tuple[Any, ...]] = Cursor(raw)
            cursor.execute(text, values, prepare=True)
            return cursor.fetchall() if cursor.description else []
        finally:
            raw.prepare_threshold = threshold
