"""Inserting rows, without Django's preparing them value by value.

A model has some twenty columns, nearly all of which hold what the driver takes as it
is. On PostgreSQL a single row is one prepared statement, and several are one COPY; the
portable twin is Django's own.
"""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from enum import Enum
from typing import Any

from django.db import models, transaction
from django.db.models import Model

from durable_jobs.models.fields import PayloadField
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.store import db
from durable_jobs.store.postgres import prepared


def insert(model: type[Model], rows: Sequence[Model]) -> None:
    """Insert rows, all or none. A key that the database gives is not read back."""
    if not rows:
        return
    if not prepared.allowed(db.connection()):
        _portably(model, rows)
        return
    table = _Table.of(model)
    values = [table.values(row) for row in rows]
    with transaction.mark_for_rollback_on_error(using=db.alias()):
        if len(rows) == 1:
            prepared.fetch(table.insert, values[0])
        else:
            _copy(table, values)
    for row in rows:
        row._state.adding, row._state.db = False, db.alias()


def _copy(table: _Table, values: Sequence[Sequence[Any]]) -> None:
    connection = db.connection()
    with (
        connection.cursor() as cursor,
        connection.wrap_database_errors,
        # Django's cursor passes on what it does not know.
        cursor.copy(table.copy) as copy,
    ):
        for row in values:
            copy.write_row(row)


def _portably(model: type[Model], rows: Sequence[Model]) -> None:
    """Insert as Django does. ``bulk_create`` opens a transaction: not for one row."""
    manager = model._default_manager.using(db.alias())
    if len(rows) != 1:
        manager.bulk_create(rows, batch_size=1000)
        return
    fields = [field for field in model._meta.concrete_fields if _given(field)]
    with transaction.mark_for_rollback_on_error(using=db.alias()):
        manager._insert(rows, fields=fields, using=db.alias())  # type: ignore[attr-defined]  # as save() does
    rows[0]._state.adding, rows[0]._state.db = False, db.alias()


def _given(field: models.Field[Any, Any]) -> bool:
    """Tell whether a row comes with a value for a field."""
    return not isinstance(field, models.AutoField | models.BigAutoField)


class _Table:
    """How rows of a model are written."""

    def __init__(self, model: type[Model]) -> None:
        connection = db.connection()
        fields = [field for field in model._meta.concrete_fields if _given(field)]
        self._columns = [(field.attname, *_passing(field)) for field in fields]
        # Without its length: a cast would cut what is too long.
        types = [str(field.db_type(connection)).partition("(")[0] for field in fields]
        names = ", ".join(f'"{field.column}"' for field in fields)
        places = ", ".join(f"%s::{kind}" for kind in types)
        table = model._meta.db_table
        self.insert = f"INSERT INTO {table} ({names}) VALUES ({places}) "  # noqa: S608  # names of our own models, no values
        self.copy = f"COPY {table} ({names}) FROM STDIN"

    @classmethod
    @functools.cache
    def of(cls, model: type[Model]) -> _Table:
        """Return it for a model."""
        return cls(model)

    def values(self, row: Model) -> list[Any]:
        """Return a row's values as the driver takes them, in the order of columns."""
        found = row.__dict__
        return [
            value
            if (value := found[name]) is None or type(value) in passing
            else convert(value)
            for name, passing, convert in self._columns
        ]


#: What the driver writes as the database wants it, by the class of the field.
_PASSING: dict[type[models.Field[Any, Any]], type] = {
    models.UUIDField: uuid.UUID,
    models.DateTimeField: datetime,
    models.BooleanField: bool,
    models.IntegerField: int,
    models.CharField: str,
    models.TextField: str,
}


def _passing(
    field: models.Field[Any, Any],
) -> tuple[frozenset[type], Callable[[Any], Any]]:
    """Return which values of a field pass as they are, and what makes the others so."""
    if isinstance(field, models.ForeignKey):
        field = field.target_field
    kinds = {kind for known, kind in _PASSING.items() if isinstance(field, known)}

    def convert(value: Any) -> Any:
        if isinstance(value, EncodedJSON):
            return str(value)
        if isinstance(value, Enum):
            return value.value
        if type(field) is models.JSONField and field.encoder is None:
            return json.dumps(value)
        return field.get_db_prep_save(value, db.connection())

    if isinstance(field, models.JSONField | PayloadField):
        return frozenset(), convert
    return frozenset(kinds), convert
