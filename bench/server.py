"""The PostgreSQL server: a database of the benchmark's own, and what it counted there.

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

NAME = "durable_bench"
SETTINGS = ("server_version", "fsync", "synchronous_commit", "wal_sync_method")
#: From this version on the server counts a session's waits apart from its own.
PG_18 = 180000
#: A session that rests tells what it did after ten seconds, and seldom before.
IDLE_REPORT = 11


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
    commits: float
    syncs: float
    wal_bytes: float

    @property
    def calls(self) -> float:
        """How many statements there were, transaction control included."""
        return sum(statement.calls for statement in self.statements)


class Server:
    """The server behind ``DATABASE_URL``, and the benchmark's database on it."""

    def __init__(self, address: str) -> None:
        self._parts = urlsplit(address)
        self._monitor = psycopg.connect(address, autocommit=True)
        self._monitor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        self._base = (0, 0, 0)

    @property
    def address(self) -> str:
        """The ``DATABASE_URL`` of the benchmark's own database."""
        return self._parts._replace(path=f"/{NAME}").geturl()

    @contextmanager
    def database(self) -> Iterator[None]:
        """Create the database for the time of the block."""
        self._drop()
        self._monitor.execute(sql.SQL("CREATE DATABASE {}").format(_NAME))
        try:
            yield
        finally:
            self._drop()
            self._monitor.close()

    def _drop(self) -> None:
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(_NAME)
        self._monitor.execute(drop)

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a new connection to the benchmark's database, without transactions."""
        return psycopg.connect(self.address, autocommit=True)

    def settings(self) -> dict[str, str]:
        """Return the settings that decide what a commit costs."""
        return {name: self._value(f"SHOW {name}") for name in SETTINGS}

    def reset(self) -> None:
        """Count from here on."""
        self._base = self._totals()
        self._value("SELECT pg_stat_statements_reset()")

    def counts(self, divisor: float) -> Counts:
        """Return what was counted since the reset, for each of ``divisor``."""
        rows = self._monitor.execute(
            "SELECT query, calls, mean_exec_time FROM pg_stat_statements "
            "WHERE dbid = (SELECT oid FROM pg_database WHERE datname = %s) "
            "ORDER BY calls DESC, query",
            [NAME],
        )
        statements = [Statement(text, n / divisor, ms) for text, n, ms in rows]
        pairs = zip(self._totals(), self._base, strict=True)
        commits, syncs, wal = ((now - then) / divisor for now, then in pairs)
        return Counts(statements, commits, syncs, wal)

    def _totals(self) -> tuple[int, int, int]:
        time.sleep(IDLE_REPORT)
        io = self._monitor.info.server_version >= PG_18
        syncs = (
            "SELECT sum(fsyncs) FROM pg_stat_io "
            "WHERE object = 'wal' AND backend_type = 'client backend'"
            if io
            else "SELECT wal_sync FROM pg_stat_wal"
        )
        commits = f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{NAME}'"  # noqa: S608  # our own constant
        position = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
        return (
            int(self._value(commits)),
            int(self._value(syncs) or 0),
            int(self._value(position)),
        )

    def _value(self, query: str) -> Any:
        row = self._monitor.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


_NAME = sql.Identifier(NAME)
