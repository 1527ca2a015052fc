"""Model fields for payloads, which return values with their types when they are read.

Loading a row decodes no payload. A payload may name a class or a row that this process
cannot load, and the run must still be claimed, cancelled and shown.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.core.exceptions import ObjectDoesNotExist
from django.db import models
from django.db.models.expressions import Col
from django.db.models.query_utils import DeferredAttribute

from durable_jobs import serialization
from durable_jobs.serialization.stored import EncodedJSON, StoredPayload


def payload(row: models.Model, name: str) -> Any:
    """Return a payload for code that acts on it; raise the error if it is unreadable.

    If the payload refers to a deleted row, return the stored JSON.
    """
    value = row.__dict__.get(name)
    if not isinstance(value, StoredPayload):
        return getattr(row, name)
    try:
        row.__dict__[name] = value.decoded()
    except ObjectDoesNotExist:
        return value.tree()
    return row.__dict__[name]


class _Payload(DeferredAttribute):
    """Decode a payload when it is first read, and keep the value.

    If the payload is unreadable, return the stored JSON, and try again on each read.
    """

    def __get__(self, instance: Any, cls: Any = None) -> Any:
        value = super().__get__(instance, cls)
        if not isinstance(value, StoredPayload):
            return value
        try:
            found = value.decoded()
        except Exception:  # noqa: BLE001  # as in StoredPayload.shown
            return value.tree()
        instance.__dict__[self.field.attname] = found
        return found

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__[self.field.attname] = value


class _PayloadColumn:
    """What both payload fields share."""

    descriptor_class: type[Any] = _Payload

    def pre_save(self, instance: models.Model, add: bool) -> Any:
        """Return the stored payload if it was not read, else the value."""
        name: str = self.attname  # type: ignore[attr-defined]  # of the field
        value = instance.__dict__.get(name)
        return value if isinstance(value, StoredPayload) else getattr(instance, name)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Wrap the stored JSON, which is decoded on the first read."""
        if value is None:
            return None
        stored = StoredPayload(value)
        # An expression on the column, such as a key of it, has no descriptor.
        lazy = expression is None or isinstance(expression, Col)
        return stored if lazy else stored.shown()


class PayloadField(_PayloadColumn, models.JSONField):
    """JSON that the codec encodes and decodes; None is SQL NULL.

    Lookups use the stored JSON: ``data__order_id=7`` works as on a ``JSONField``.
    """

    def get_db_prep_value(
        self, value: Any, connection: Any, prepared: bool = False
    ) -> Any:
        """Encode the value; leave expressions and None unchanged."""
        if isinstance(value, StoredPayload):
            value = value.tree()
        elif isinstance(value, EncodedJSON):
            value = json.loads(value)
        elif value is not None and not hasattr(value, "resolve_expression"):
            value = serialization.to_tree(value, what=self.name, wrapped=True)
        return super().get_db_prep_value(value, connection, prepared)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Store None as SQL NULL, not as a JSON null."""
        if value is None:
            return None
        return self.get_db_prep_value(value, connection)

    def deconstruct(self) -> Any:
        """Appear in migrations as a plain JSONField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs


class PayloadTextField(_PayloadColumn, models.TextField):
    """JSON as text, which keeps the order of a dict's keys; binary JSON loses it.

    A replay must return the same value as the first execution did.
    """

    def get_prep_value(self, value: Any) -> Any:
        """Encode the value, unless it is encoded already."""
        if value is None or isinstance(value, EncodedJSON):
            return value
        if isinstance(value, StoredPayload):
            return EncodedJSON(value.text())
        return EncodedJSON(serialization.dumps(value, what=self.name, wrapped=True))

    def deconstruct(self) -> Any:
        """Appear in migrations as a plain TextField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs


M = TypeVar("M", bound=models.Model)


class PayloadQuerySet(models.QuerySet[M], Generic[M]):
    """A queryset whose ``values()`` and ``values_list()`` decode payloads."""

    if not TYPE_CHECKING:  # the types in the stubs are more precise

        def values(self, *fields: Any, **expressions: Any) -> Any:
            """Return dicts with decoded payloads."""
            return self._decode(super().values(*fields, **expressions), fields)

        def values_list(self, *fields: Any, **options: Any) -> Any:
            """Return tuples or single values with decoded payloads."""
            return self._decode(super().values_list(*fields, **options), fields)

    def _decode(self, rows: Any, fields: tuple[Any, ...]) -> Any:
        names = {
            field.name
            for field in self.model._meta.concrete_fields
            if isinstance(field, _PayloadColumn)
        }
        if not fields or any(str(field) in names for field in fields):
            rows._iterable_class = _decoding(rows._iterable_class)
        return rows


@functools.cache
def _decoding(kind: type[Any]) -> type[Any]:
    """Return a subclass of a Django iterable that decodes payloads."""

    class DecodingIterable(kind):  # type: ignore[misc]  # one of several classes of Django's
        def __iter__(self) -> Iterator[Any]:
            return map(_shown, super().__iter__())

    return DecodingIterable


def _shown(row: Any) -> Any:
    if isinstance(row, StoredPayload):
        return row.shown()
    if isinstance(row, dict):
        return {name: _shown(value) for name, value in row.items()}
    if isinstance(row, tuple):
        values = map(_shown, row)
        return row._make(values) if hasattr(row, "_make") else tuple(values)
    return row
