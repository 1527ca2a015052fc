"""Insert rows without Django's per-value preparation.

A model has about twenty columns, and the driver accepts nearly all their values
unchanged. On PostgreSQL, one row is one prepared statement, and several rows are one
COPY. Other databases use Django's insert.
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
    """Insert all rows or none. Keys that the database generates are not read back."""
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
        # Django's cursor delegates unknown attributes to the driver's cursor.
        cursor.copy(table.copy) as copy,
    ):
        for row in values:
            copy.write_row(row)


def _portably(model: type[Model], rows: Sequence[Model]) -> None:
    """Insert with Django. One row avoids the transaction that ``bulk_create`` opens."""
    manager = model._default_manager.using(db.alias())
    if len(rows) != 1:
        manager.bulk_create(rows, batch_size=1000)
        return
    fields = [field for field in model._meta.concrete_fields if _given(field)]
    with transaction.mark_for_rollback_on_error(using=db.alias()):
        manager._insert(rows, fields=fields, using=db.alias())  # type: ignore[attr-defined]  # as save() does
    rows[0]._state.adding, rows[0]._state.db = False, db.alias()


def _given(field: models.Field[Any, Any]) -> bool:
    """Return whether the field is set by the caller and not by the database."""
    return not isinstance(field, models.AutoField | models.BigAutoField)


class _Table:
    """The statements that insert rows of a model, and the conversion of values."""

    def __init__(self, model: type[Model]) -> None:
        connection = db.connection()
        fields = [field for field in model._meta.concrete_fields if _given(field)]
        self._columns = [(field.attname, *_conversion(field)) for field in fields]
        # Without the length, because a cast would truncate long values.
        types = [str(field.db_type(connection)).partition("(")[0] for field in fields]
        names = ", ".join(f'"{field.column}"' for field in fields)
        placeholders = ", ".join(f"%s::{kind}" for kind in types)
        table = model._meta.db_table
        self.insert = f"INSERT INTO {table} ({names}) VALUES ({placeholders}) "  # noqa: S608  # names of our own models, no values
        self.copy = f"COPY {table} ({names}) FROM STDIN"

    @classmethod
    @functools.cache
    def of(cls, model: type[Model]) -> _Table:
        """Return the cached table of a model."""
        return cls(model)

    def values(self, row: Model) -> list[Any]:
        """Return the values of a row for the driver, in the order of the columns."""
        fields = row.__dict__
        return [
            value
            if (value := fields[name]) is None or type(value) in unchanged
            else convert(value)
            for name, unchanged, convert in self._columns
        ]


#: Types that the driver writes unchanged, by the class of the field.
_UNCHANGED: dict[type[models.Field[Any, Any]], type] = {
    models.UUIDField: uuid.UUID,
    models.DateTimeField: datetime,
    models.BooleanField: bool,
    models.IntegerField: int,
    models.CharField: str,
    models.TextField: str,
}


def _conversion(
    field: models.Field[Any, Any],
) -> tuple[frozenset[type], Callable[[Any], Any]]:
    """Return the types that need no conversion, and the conversion of other types."""
    if isinstance(field, models.ForeignKey):
        field = field.target_field
    kinds = {kind for known, kind in _UNCHANGED.items() if isinstance(field, known)}

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
