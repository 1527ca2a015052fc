"""Databases of the lab's own: a server to be crashed, and a clock to be moved."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection, connections

from durable_jobs import clock
from project.addresses import database
from tests.services.keeper import account_of_servers
from tests.services.postgres import Postgres


@contextmanager
def directory() -> Iterator[Path]:
    """Give a directory with a short path, which the servers' account may use."""
    account = account_of_servers()
    base = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # noqa: S108  # a private one
    try:
        if account is not None:
            os.chown(base, account.pw_uid, account.pw_gid)
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL that nobody else uses, so that it may be crashed."""
    with ExitStack() as stack:
        base = stack.enter_context(directory())
        server = Postgres(base, account_of_servers())
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


@contextmanager
def pointed(url: str) -> Iterator[None]:
    """Let this process work on another database, in all its threads."""
    settings: dict[str, Any] = connections.settings["default"]
    before = dict(settings)
    connections.close_all()
    settings.update(database(url))
    clock.reset()
    try:
        yield
    finally:
        connections.close_all()
        settings.clear()
        settings.update(before)
        clock.reset()


def migrate() -> None:
    """Make the tables."""
    call_command("migrate", verbosity=0)


class DatabaseClock:
    """The time of the lab's database, which can be moved.

    A schema before ``pg_catalog`` has a ``clock_timestamp()`` of its own. All who
    connect later see it; those that are there ask again when they next synchronise.
    """

    def move(self, by: timedelta) -> None:
        """Let the database's time be so far from the real one."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE lab_clock.shift SET by = %s", [by])
        clock.reset()


_CLOCK = """
CREATE SCHEMA lab_clock;
CREATE TABLE lab_clock.shift (by interval NOT NULL);
INSERT INTO lab_clock.shift VALUES ('0');
CREATE FUNCTION lab_clock.clock_timestamp() RETURNS timestamptz
LANGUAGE sql VOLATILE AS
$$ SELECT pg_catalog.clock_timestamp() + by FROM lab_clock.shift $$;
ALTER DATABASE {name} SET search_path = lab_clock, pg_catalog, public;
"""

_REAL = """
ALTER DATABASE {name} RESET search_path;
DROP SCHEMA lab_clock CASCADE;
"""


@contextmanager
def movable_clock() -> Iterator[DatabaseClock]:
    """Give the test's database a clock that can be moved."""
    name = connection.ops.quote_name(str(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        cursor.execute(_CLOCK.format(name=name))
    connections.close_all()
    try:
        yield DatabaseClock()
    finally:
        with connection.cursor() as cursor:
            cursor.execute(_REAL.format(name=name))
        connections.close_all()
        clock.reset()
