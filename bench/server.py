"""The PostgreSQL server: one database per peer, and its statement counters.

The counters are read on a connection to another database of the same server, so the
measurement does not change them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

SETTINGS = ("server_version", "fsync", "synchronous_commit", "wal_sync_method")
#: Since this version, the WAL syncs are in ``pg_stat_io``.
PG_18 = 180000
#: Seconds to wait for counters: an idle session reports them within ten seconds.
IDLE_REPORT = 11

_TOTAL_BYTES = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, with its number of calls and mean time."""

    text: str
    calls: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """The counters of the server, divided by the number of measured operations."""

    statements: list[Statement]
    syncs: float
    wal_bytes: float

    @property
    def calls(self) -> float:
        """The number of statements, including transaction control."""
        return sum(statement.calls for statement in self.statements)


class Server:
    """The server behind ``DATABASE_URL``."""

    def __init__(self, address: str) -> None:
        self.parts = urlsplit(address)
        self.monitor = psycopg.connect(address, autocommit=True)
        self.monitor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    @contextmanager
    def database(self, name: str) -> Iterator[Database]:
        """Create a database. Drop it after the block."""
        self._drop(name)
        create = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        self.monitor.execute(create)
        try:
            yield Database(self, name)
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        self.monitor.execute(drop.format(sql.Identifier(name)))

    def settings(self) -> dict[str, str]:
        """Return the settings that determine the cost of a commit."""
        return {name: str(self.value(f"SHOW {name}")) for name in SETTINGS}

    def value(self, query: str, *values: Any) -> Any:
        """Return the single value of a query."""
        row = self.monitor.execute(query.encode(), values or None).fetchone()
        assert row is not None
        return row[0]


class Database:
    """The database of one peer, with its counters."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self._base = (0, 0)

    @property
    def address(self) -> str:
        """The ``DATABASE_URL`` of the database."""
        return self.server.parts._replace(path=f"/{self.name}").geturl()

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection to the database in autocommit mode."""
        return psycopg.connect(self.address, autocommit=True)

    def backends(self) -> list[int]:
        """Return the process ids of the database's server processes."""
        rows = self.server.monitor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s", [self.name]
        )
        return [pid for (pid,) in rows]

    def stored_bytes(self) -> int:
        """Return the size of all tables and indexes in bytes after ``VACUUM FULL``."""
        with self.connect() as connection:
            connection.execute("VACUUM FULL")
            row = connection.execute(_TOTAL_BYTES).fetchone()
        assert row is not None
        return int(row[0])

    def reset_statements(self) -> None:
        """Reset the counters of statements."""
        self.server.value("SELECT pg_stat_statements_reset()")

    def statements(self) -> list[Statement]:
        """Return the statements since the reset, the most frequent statement first."""
        rows = self.server.monitor.execute(
            "SELECT query, calls, mean_exec_time FROM pg_stat_statements "
            "WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s) "
            "ORDER BY calls DESC, query",
            [self.name],
        )
        return [Statement(*row) for row in rows]

    def reset(self) -> None:
        """Reset all counters. Takes ``IDLE_REPORT`` seconds: sessions report late."""
        self._base = self._totals()
        self.reset_statements()

    def counts(self, divisor: float) -> Counts:
        """Return the counters since the reset, divided by ``divisor``.

        The statements are counted until now. The other counters are read after
        ``IDLE_REPORT`` seconds, in which an idle peer does not write.
        """
        found = [
            Statement(one.text, one.calls / divisor, one.milliseconds)
            for one in self.statements()
        ]
        pairs = zip(self._totals(), self._base, strict=True)
        syncs, wal = ((now - then) / divisor for now, then in pairs)
        return Counts(found, syncs, wal)

    def _totals(self) -> tuple[int, int]:
        time.sleep(IDLE_REPORT)
        server = self.server
        syncs = (
            "SELECT sum(fsyncs) FROM pg_stat_io "
            "WHERE object = 'wal' AND backend_type = 'client backend'"
            if server.monitor.info.server_version >= PG_18
            else "SELECT wal_sync FROM pg_stat_wal"
        )
        position = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        return (
            int(server.value(syncs) or 0),
            int(server.value(position)),
        )
