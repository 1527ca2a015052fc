"""The lab's own databases: a server to crash, and a clock to move."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import connection, connections
from django.db.models import Model

from durable_jobs import clock
from project.addresses import database
from tests.lab.processes import ROOT, SETTINGS
from tests.services.keeper import account_of_servers
from tests.services.postgres import Postgres


@contextmanager
def directory() -> Iterator[Path]:
    """Yield a directory with a short path, which the server's account may use."""
    account = account_of_servers()
    base = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # a private one
    try:
        if account is not None:
            os.chown(base, account.pw_uid, account.pw_gid)
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def own_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL server for these tests alone, so that a test may crash it."""
    with ExitStack() as stack:
        base = stack.enter_context(directory())
        server = Postgres(base, account_of_servers())
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def pointed(url: str) -> Iterator[None]:
    """Connect all threads of this process to another database inside the block."""
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


def migrate(url: str) -> None:
    """Create the tables.

    A separate process migrates, because this process may know another migrated
    database.
    """
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v", "0"],
        cwd=ROOT,
        env={**os.environ, **SETTINGS, "DATABASE_URL": url},
        check=True,
    )


class DatabaseClock:
    """The time of the lab's database, which a test can move.

    A schema before ``pg_catalog`` has its own ``clock_timestamp()``. New connections
    see it at once. Existing ones see it when they next synchronize.
    """

    def move(self, by: timedelta) -> None:
        """Set the difference of the database's time from the real time."""
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE lab_clock.shift SET by = make_interval(secs => %s)",
                [by.total_seconds()],
            )
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
    """Yield a clock of the test's database that can be moved."""
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


class Trouble:
    """Makes the database fail a number of times; ``fired`` counts the failures."""

    def __init__(self, times: int) -> None:
        self.times = times

    @property
    def fired(self) -> int:
        """The number of statements that have failed."""
        with connection.cursor() as cursor:
            # A sequence also counts what is rolled back.
            cursor.execute("SELECT last_value, is_called FROM lab_trouble")
            value, called = cursor.fetchone()
        return min(int(value), self.times) if called else 0


_TROUBLE = """
CREATE SEQUENCE lab_trouble;
CREATE FUNCTION lab_trouble() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('lab_trouble') <= {times} THEN
        RAISE EXCEPTION 'trouble of the lab' USING ERRCODE = '{state}';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lab_trouble BEFORE {when} ON {table}
FOR EACH ROW EXECUTE FUNCTION lab_trouble();
"""

_CALM = """
DROP TRIGGER lab_trouble ON {table};
DROP FUNCTION lab_trouble;
DROP SEQUENCE lab_trouble;
"""


@contextmanager
def trouble(
    model: type[Model], state: str, *, times: int, when: str = "INSERT OR UPDATE"
) -> Iterator[Trouble]:
    """Let writes to a table fail with an SQLSTATE, ``times`` times."""
    table = model._meta.db_table
    text = _TROUBLE.format(state=state, times=times, when=when, table=table)
    with connection.cursor() as cursor:
        cursor.execute(text)
    try:
        yield Trouble(times)
    finally:
        with connection.cursor() as cursor:
            cursor.execute(_CALM.format(table=table))


@contextmanager
def limited_role(connections_at_once: int) -> Iterator[str]:
    """Yield the name of a role with a connection limit."""
    name = f"lab_{connection.settings_dict['NAME']}"
    with connection.cursor() as cursor:
        cursor.execute(f"DROP ROLE IF EXISTS {name}")
        cursor.execute(
            f"CREATE ROLE {name} LOGIN CONNECTION LIMIT {connections_at_once}"
        )
        cursor.execute(f"GRANT pg_read_all_data, pg_write_all_data TO {name}")
    try:
        yield name
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"DROP ROLE {name}")
