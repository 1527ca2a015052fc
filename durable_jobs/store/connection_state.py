"""Check and restore this thread's database connections after user code has run.

User code can leave a transaction open (``BEGIN`` in a cursor, ``set_autocommit``, an
``atomic`` block that is never left) or change the session (``SET``, an advisory lock, a
temporary table). The next run on the same worker would inherit both.

The checks ask the driver what it knows already. They send nothing to the server. A
connection whose session was changed is closed, and opens again when it is needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from durable_jobs.exceptions import ConfigurationError, TransactionStateError
from durable_jobs.store.statement_kinds import (
    changes_session,
    may_change_scope,
    writes,
)

_SCOPE = "SELECT current_setting('search_path'), current_setting('role')"
_TO_SCOPE = "SELECT set_config('search_path', %s, true), set_config('role', %s, true)"

#: Settings whose values PostgreSQL reports to its clients.
_REPORTED = (
    "session_authorization",
    "is_superuser",
    "default_transaction_read_only",
    "search_path",
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "application_name",
    "client_encoding",
    "standard_conforming_strings",
)


class _Known(threading.local):
    """The connections of this thread by alias, because Django's lookup is slower."""

    def __init__(self) -> None:
        self.connections: dict[str, BaseDatabaseWrapper] = {}
        #: The databases that the body of an atomic step may write, and its name.
        self.writable: frozenset[str] | None = None
        self.owner = ""

    def check_write(self, connection: BaseDatabaseWrapper, text: str) -> None:
        """Raise if an atomic body writes to a database outside its transaction."""
        alias, writable = connection.alias, self.writable
        if writable is None or alias in writable or not writes(text):
            return
        msg = (
            f"{self.owner} writes to database {alias!r}, which its transaction does "
            f"not cover: a retry would write again. Use ctx.step.run() for it, or "
            f"say using={alias!r} if that is meant."
        )
        raise ConfigurationError(msg)


_known = _Known()

#: Whether this process executes runs. If so, its connections are watched.
_watching = False

#: The transaction status that libpq reports (``PGTransactionStatusType``).
_IDLE, _ACTIVE, _IN_TRANSACTION, _IN_ERROR = _KNOWN = range(4)
_LOST = 4


class SessionWatch:
    """An execute wrapper that records changes of the connection's session."""

    def __init__(self) -> None:
        self.changed = False
        #: Save the search path and the role before the next change.
        self.keeping = False
        self._kept: tuple[Any, ...] | None = None
        self._raw: Any = None
        self._reported: tuple[Any, ...] = ()

    def __call__(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        """Check a statement and execute it."""
        text = _text(sql, context)
        _known.check_write(context["connection"], text)
        if self.keeping and self._kept is None and may_change_scope(text):
            self._kept = _fetch(context["connection"], _SCOPE)
        if not self.changed and changes_session(text):
            self.changed = True
        return execute(sql, params, many, context)

    def begin(self, connection: BaseDatabaseWrapper) -> None:
        """Record the reported settings if the session is new."""
        self.keeping = False
        if connection.connection is not self._raw:
            self._raw = connection.connection
            self._reported = _reported(connection)
            self.changed = False

    def keep_scope(self, connection: BaseDatabaseWrapper) -> None:
        """Save the search path and the role before user code changes them."""
        self.keeping, self._kept = connection.vendor == "postgresql", None

    def restore_scope(self, connection: BaseDatabaseWrapper) -> None:
        """Restore the search path and the role for the engine's next statement."""
        self.keeping, kept, self._kept = False, self._kept, None
        if kept is not None:
            _fetch(connection, _TO_SCOPE, kept)

    def differs(self, connection: BaseDatabaseWrapper, reported: bool) -> bool:
        """Return whether the session was changed since ``begin``."""
        if connection.connection is not self._raw:
            return False
        if self.changed or not reported:
            return self.changed
        return _reported(connection) != self._reported


def _fetch(
    connection: BaseDatabaseWrapper, statement: str, values: Any = None
) -> tuple[Any, ...]:
    """Execute a statement without Django's cursor and return its row."""
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(statement, values)
        row: tuple[Any, ...] = cursor.fetchone()
        return row


def _text(sql: Any, context: dict[str, Any]) -> str:
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    try:  # a composed statement of psycopg
        return str(sql.as_string(context["connection"].connection))
    except Exception:  # noqa: BLE001  # the driver raises it when it executes
        return ""


def _reported(connection: BaseDatabaseWrapper) -> tuple[Any, ...]:
    raw = connection.connection
    if raw is None or connection.vendor != "postgresql":
        return ()
    pgconn = getattr(raw, "pgconn", None)
    if pgconn is None:  # psycopg2
        return tuple(raw.get_parameter_status(name) for name in _REPORTED)
    return tuple(pgconn.parameter_status(name.encode()) for name in _REPORTED)


def watch_of(connection: BaseDatabaseWrapper) -> SessionWatch:
    """Return the watch of a connection; add one if there is none."""
    for wrapper in connection.execute_wrappers:
        if isinstance(wrapper, SessionWatch):
            return wrapper
    watch = SessionWatch()
    # First: Django's execute_wrapper() removes the last one when its block ends.
    connection.execute_wrappers.insert(0, watch)
    return watch


def watched_only(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a connection has no execute wrapper except ``SessionWatch``."""
    wrappers = connection.execute_wrappers
    return not wrappers or (
        len(wrappers) == 1 and isinstance(wrappers[0], SessionWatch)
    )


def _status(connection: BaseDatabaseWrapper) -> int:
    """Return the transaction status of the driver; 4 is a lost connection."""
    raw = connection.connection
    if raw is None:
        return _IDLE
    if connection.vendor == "postgresql":
        pgconn = getattr(raw, "pgconn", None)
        if pgconn is None:  # psycopg2
            return int(raw.get_transaction_status())
        return int(pgconn.transaction_status)
    try:
        known = getattr(raw, "in_transaction", None)  # of sqlite3
    except Exception:  # noqa: BLE001  # closed: each driver raises its own error
        return _LOST
    if known is None:
        known = connection.in_atomic_block
    return _IN_TRANSACTION if known else _IDLE


def depth(connection: BaseDatabaseWrapper) -> int:
    """Return the number of nested transactions of a connection."""
    if connection.atomic_blocks or connection.connection is None:
        return len(connection.atomic_blocks)
    if not connection.settings_dict["AUTOCOMMIT"]:
        return 0  # your project ends its own transactions
    if not connection.autocommit or not _autocommits(connection):
        return 1
    return int(_status(connection) in (_ACTIVE, _IN_TRANSACTION, _IN_ERROR))


def _autocommits(connection: BaseDatabaseWrapper) -> bool:
    """Return whether the driver commits each statement, whatever Django's state is."""
    raw = connection.connection
    if connection.vendor == "postgresql":
        return bool(raw.autocommit)
    if connection.vendor == "sqlite":
        # A closed connection raises.
        return _status(connection) == _LOST or raw.isolation_level is None
    return True


class Guard:
    """The state of this thread's connections before user code runs.

    ``end`` restores that state and returns an error if a transaction was left open.
    """

    def __init__(self) -> None:
        global _watching
        _watching = True
        self._depths: dict[str, int] = {}
        for connection in connections.all(initialized_only=True):
            _known.connections[connection.alias] = connection
            watch_of(connection).begin(connection)
            if connection.atomic_blocks:
                self._depths[connection.alias] = len(connection.atomic_blocks)

    def depth(self, alias: str) -> int:
        """Return the number of transactions that a connection had."""
        return self._depths.get(alias, 0)

    def end(self, owner: str, *, reported: bool = True) -> TransactionStateError | None:
        """Restore all connections; return an error if a transaction was left open.

        With ``reported``, also compare the settings that the server reports.
        """
        error: TransactionStateError | None = None
        for connection in list(_known.connections.values()):
            around = self.depth(connection.alias)
            if depth(connection) > around:
                _unwind(connection, around)
                error = TransactionStateError(
                    f"{owner} left a transaction open on database "
                    f"{connection.alias!r}. It was rolled back. Commit it, or use "
                    f"transaction.atomic() as a context manager."
                )
            if not around and watch_of(connection).differs(connection, reported):
                _close(connection)
        return error


@contextmanager
def restored(owner: str) -> Iterator[None]:
    """Restore the connections after the block; raise if it left a transaction open."""
    guard = Guard()
    try:
        yield
    except BaseException:
        guard.end(owner)
        raise
    error = guard.end(owner)
    if error is not None:
        raise error


class AtomicGuard(Guard):
    """A guard around the body of an atomic step, inside the step's transaction."""

    def __init__(
        self, connection: BaseDatabaseWrapper, owner: str, using: str | None
    ) -> None:
        super().__init__()
        self._connection = connection
        _known.owner = owner
        _known.writable = frozenset({connection.alias, using or connection.alias})
        self._around = len(connection.atomic_blocks)
        watch_of(connection).keep_scope(connection)

    def end(
        self, owner: str, *, reported: bool = False
    ) -> TransactionStateError | None:
        """Return an error of the step's transaction or of another connection.

        A lost connection is not an error of the body. The next statement raises it.
        """
        self.leave()
        problem = self._problem()
        if problem:
            msg = f"{owner} {problem}. What it wrote was rolled back."
            return TransactionStateError(msg)
        if _status(self._connection) in _KNOWN:
            watch_of(self._connection).restore_scope(self._connection)
        return super().end(owner, reported=reported)

    def leave(self) -> None:
        """Allow this thread to write to any database again."""
        _known.writable = None

    def _problem(self) -> str:
        connection, status = self._connection, _status(self._connection)
        if len(connection.atomic_blocks) > self._around:
            _unwind(connection, self._around)
            return "left a transaction.atomic() block open. Use it as a context manager"
        if connection.closed_in_transaction or status == _IDLE:
            return (
                "ended the transaction that its step is recorded in. Leave out COMMIT "
                "and ROLLBACK, and do not close the connection"
            )
        if status in _KNOWN and (connection.needs_rollback or status == _IN_ERROR):
            return (
                "swallowed a database error, which has ended its transaction. Let the "
                "error out, or put the statement in a transaction.atomic() of its own"
            )
        return ""


def _unwind(connection: BaseDatabaseWrapper, around: int) -> None:
    """Roll back the transactions nested deeper than ``around``."""
    if around:
        # The code that opened the outer transaction rolls it back.
        del connection.atomic_blocks[around:]
        del connection.savepoint_ids[max(0, around - 1) :]
        connection.needs_rollback = True
        return
    connection.in_atomic_block = False
    connection.atomic_blocks, connection.savepoint_ids = [], []
    connection.run_commit_hooks_on_set_autocommit_on = False
    connection.needs_rollback = False
    try:
        connection.rollback()
        connection.set_autocommit(True)
    except Exception:  # noqa: BLE001  # a new connection is opened after any error
        _close(connection)


def _close(connection: BaseDatabaseWrapper) -> None:
    """Close a connection, so that a pool does not keep it."""
    raw = connection.connection
    if getattr(connection, "pool", None) and raw is not None:
        with suppress(Exception):
            raw.close()
    with suppress(Exception):
        connection.close()


def _watch_new(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    """Watch a new connection from its start, because user code may open it."""
    if _watching:
        _known.connections[connection.alias] = connection
        watch_of(connection).begin(connection)


connection_created.connect(_watch_new, dispatch_uid="durable_jobs.connection_state")
