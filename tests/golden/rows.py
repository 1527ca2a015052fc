"""The rows of all the app's tables: exported to a file, and imported again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.core.management.color import no_style
from django.db import Error, connection, migrations, models
from django.db.migrations.loader import MigrationLoader
from django.utils.duration import duration_iso_string

from durable_jobs.models.fields import PayloadField, PayloadTextField
from durable_jobs.serialization.stored import EncodedJSON
from tests.lab.models import Account

APP = "durable_jobs"

#: Rows by table, each with the columns that are not null.
Rows = dict[str, list[dict[str, Any]]]


class Unreadable(AssertionError):
    """A release's rows do not fit into the current tables."""

    def __init__(self, release: str, problem: str) -> None:
        super().__init__(
            f"Runs of release {release} cannot go on in this code: {problem}\n"
            f"Installations have such rows. Write a data migration (a RunPython in "
            f"{APP}/migrations) that makes of them what this code expects: this test "
            f"runs it on the rows it has loaded. Where a column is gone, have it carry "
            f"its values over first, and name it in tests/golden/rows.py, CARRIED. "
            f"The files of the release stay as they are."
        )


#: Removed ``table.column`` names of earlier releases. The function moves the value to
#: the place of its migration, given the loaded row.
CARRIED: dict[str, Any] = {}


def tables() -> dict[str, type[models.Model]]:
    """Return the models by table: the app's, and the model that the functions write."""
    found: list[type[models.Model]] = [*apps.get_app_config(APP).get_models(), Account]
    return {model._meta.db_table: model for model in found}


def columns() -> dict[str, list[str]]:
    """Return the current columns of each table."""
    return {
        table: [field.column for field in model._meta.concrete_fields]
        for table, model in tables().items()
    }


def newest_migration() -> str:
    """Return the name of the app's last migration."""
    (leaf,) = MigrationLoader(None).graph.leaf_nodes(APP)
    return str(leaf[1])


def clear() -> None:
    """Delete all rows."""
    names = map(connection.ops.quote_name, tables())
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"DELETE FROM {name}" for name in names))  # noqa: S608  # our own names


def begin_anew() -> None:
    """Delete all rows and reset the sequences."""
    flush = connection.ops.sql_flush(no_style(), list(tables()), reset_sequences=True)
    connection.ops.execute_sql_flush(flush)


# Export


def dump() -> Rows:
    """Return all rows, in the order of their keys."""
    found = {table: list(_rows(model)) for table, model in tables().items()}
    return {table: rows for table, rows in found.items() if rows}


def _rows(model: type[models.Model]) -> Iterator[dict[str, Any]]:
    fields = model._meta.concrete_fields
    names = ", ".join(connection.ops.quote_name(field.column) for field in fields)
    key = connection.ops.quote_name(model._meta.pk.column)
    table = connection.ops.quote_name(model._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {names} FROM {table} ORDER BY {key}")  # noqa: S608  # our own names
        for values in cursor.fetchall():
            pairs = zip(fields, values, strict=True)
            yield {
                f.column: _plain(f, value) for f, value in pairs if value is not None
            }


def _plain(field: models.Field[Any, Any], value: Any) -> Any:
    if isinstance(field, models.JSONField):
        return _without_traceback(json.loads(value))
    if isinstance(value, timedelta):
        return duration_iso_string(value)
    return value if isinstance(value, bool | int | str) else _text(value)


def _text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _without_traceback(value: Any) -> Any:
    """Return a value without lines and places of files."""
    if isinstance(value, dict):
        return {
            key: "…" if key == "traceback" else _without_traceback(one)
            for key, one in value.items()
        }
    return (
        [_without_traceback(one) for one in value] if isinstance(value, list) else value
    )


# Import


def load(stage: Mapping[str, Any], release: Mapping[str, Any]) -> None:
    """Import rows into the current tables, and run the data migrations since then.

    New columns get their defaults. Raise ``Unreadable`` for unknown columns.
    """
    clear()
    version = release["release"]
    known = tables()
    for table, rows in stage["tables"].items():
        if table not in known:
            raise Unreadable(version, f"it has rows in {table}, which is gone.")
        made = [_instance(known[table], row, release) for row in rows]
        try:
            known[table]._base_manager.bulk_create(made)
        except (Error, ValueError, TypeError) as error:
            raise Unreadable(version, f"{table}: {error}") from error
    reset = connection.ops.sequence_reset_sql(no_style(), list(known.values()))
    with connection.cursor() as cursor:
        for statement in reset:
            cursor.execute(statement)
    _migrate_data(release["migration"])


def _instance(
    model: type[models.Model], row: Mapping[str, Any], release: Mapping[str, Any]
) -> models.Model:
    table = model._meta.db_table
    row = dict(row)
    for column in set(row) - {field.column for field in model._meta.concrete_fields}:
        carry = CARRIED.get(f"{table}.{column}")
        if carry is None:
            problem = f"it has values in {table}.{column}, which is gone."
            raise Unreadable(release["release"], problem)
        carry(row)
        del row[column]
    there = {*release["columns"][table], *row}
    return model(
        **{
            field.attname: _value(field, row.get(field.column))
            for field in model._meta.concrete_fields
            if field.column in there
        }
    )


def _value(field: models.Field[Any, Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(field, PayloadField):
        return EncodedJSON(json.dumps(value))
    if isinstance(field, PayloadTextField):
        return EncodedJSON(value)
    return value if isinstance(field, models.JSONField) else field.to_python(value)


def _migrate_data(since: str) -> None:
    """Run the data migrations after ``since``, in their order."""
    with connection.schema_editor() as editor:
        for migration in later(since):
            for operation in migration.operations:
                if isinstance(operation, migrations.RunPython):
                    operation.code(apps, editor)


def later(since: str) -> list[migrations.Migration]:
    """Return the app's migrations after one; all, if that one was squashed."""
    graph = MigrationLoader(None).graph
    plan = graph.forwards_plan(graph.leaf_nodes(APP)[0])
    own = [graph.nodes[key] for key in plan if key[0] == APP]
    names = [migration.name for migration in own]
    return own[names.index(since) + 1 :] if since in names else own
