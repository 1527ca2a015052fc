"""Triggers that record every change of a run's and a step's state.

A row holds only its last state; the database sees all of its states.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection

from durable_jobs.models import Run, Step
from tests.lab.models import Change

_FUNCTION = f"""
CREATE OR REPLACE FUNCTION lab_journal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO {Change._meta.db_table} (kind, subject, before, after, altered)
    VALUES (TG_ARGV[0], NEW.id, OLD.status, NEW.status,
            (NEW.output, NEW.error) IS DISTINCT FROM (OLD.output, OLD.error));
    RETURN NULL;
END $$
"""  # noqa: S608  # our own table

_TRIGGER = """
CREATE OR REPLACE TRIGGER lab_journal AFTER UPDATE ON {table} FOR EACH ROW
WHEN (OLD.status <> NEW.status OR OLD.output IS DISTINCT FROM NEW.output
      OR OLD.error IS DISTINCT FROM NEW.error)
EXECUTE FUNCTION lab_journal('{kind}')
"""

_TABLES = {"run": Run._meta.db_table, "step": Step._meta.db_table}


def install() -> None:
    """Begin to record changes."""
    with connection.cursor() as cursor:
        cursor.execute(_FUNCTION)
        for kind, table in _TABLES.items():
            cursor.execute(_TRIGGER.format(table=table, kind=kind))


def remove() -> None:
    """Stop recording changes."""
    with connection.cursor() as cursor:
        for table in _TABLES.values():
            cursor.execute(f"DROP TRIGGER IF EXISTS lab_journal ON {table}")


@contextmanager
def kept() -> Iterator[None]:
    """Record changes inside the block."""
    install()
    try:
        yield
    finally:
        remove()
