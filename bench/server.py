"""The PostgreSQL server: a database for each peer, and what was counted there.

Everything is read through a connection to another database of the same server, so the
looking does not count.
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
#: From this version on the server counts a session's waits apart from its own.
PG_18 = 180000
#: A session that rests tells what it did after ten seconds, and seldom before.
IDLE_REPORT = 11

_TOTAL_BYTES = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement that the server saw, and how often."""

    text: str
    calls: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What the server counted, divided by what it was counted for."""

    statements: list[Statement]
    syncs: float
    wal_bytes: float

    @property
    def calls(self) -> float:
        """How many statements there were, transaction control included."""
        return sum(statement.calls for statement in self.statements)


class Server:
    """The server behind ``DATABASE_URL``."""

    def __init__(self, address: str) -> None:
        self.parts = urlsplit(address)
        self.monitor = psycopg.connect(address, autocommit=True)
        self.monitor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    @contextmanager
    def database(self, name: str) -> Iterator[Database]:
        """Create a database for the time of the block."""
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
        """Return the settings that decide what a commit costs."""
        return {name: str(self.value(f"SHOW {name}")) for name in SETTINGS}

    def value(self, query: str, *values: Any) -> Any:
        """Return the one value that a query gives."""
        row = self.monitor.execute(query.encode(), values or None).fetchone()
        assert row is not None
        return row[0]


class Database:
    """One peer's database, watched from outside."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self._base = (0, 0)

    @property
    def address(self) -> str:
        """Its ``DATABASE_URL``."""
        return self.server.parts._replace(path=f"/{self.name}").geturl()

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection to it, without transactions."""
        return psycopg.connect(self.address, autocommit=True)

    def backends(self) -> list[int]:
        """Return the ids of the server's processes that serve it."""
        rows = self.server.monitor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = %s", [self.name]
        )
        return [pid for (pid,) in rows]

    def stored_bytes(self) -> int:
        """Return how many bytes all its tables take when they are packed tightly."""
        with self.connect() as connection:
            connection.execute("VACUUM FULL")
            row = connection.execute(_TOTAL_BYTES).fetchone()
        assert row is not None
        return int(row[0])

    def reset_statements(self) -> None:
        """Count statements from here on."""
        self.server.value("SELECT pg_stat_statements_reset()")

    def statements(self) -> list[Statement]:
        """Return the statements since the reset, the most frequent first."""
        rows = self.server.monitor.execute(
            "SELECT query, calls, mean_exec_time FROM pg_stat_statements "
            "WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s) "
            "ORDER BY calls DESC, query",
            [self.name],
        )
        return [Statement(*row) for row in rows]

    def reset(self) -> None:
        """Count everything from here on; takes a while, for sessions report late."""
        self._base = self._totals()
        self.reset_statements()

    def counts(self, divisor: float) -> Counts:
        """Return what was counted since the reset, for each of ``divisor``.

        The statements are those until now; the rest is told after a while, in which
        a peer that polls does not write.
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
