"""A JSON column that gives back what was put in, type for type."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import models

from durable_jobs import serialization
from durable_jobs.exceptions import PayloadError


class Encoded(str):
    """JSON text that went through the codec already."""


def seen(text: str) -> Any:
    """Return a stored value; one whose class or instance is gone as it is stored.

    A row that names what is gone must not make a page, or a claim of many, fail.
    """
    try:
        return serialization.loads(text)
    except (PayloadError, ObjectDoesNotExist):
        return json.loads(text)


class PayloadField(models.JSONField):
    """JSON written and read through the project's codec; null is SQL NULL.

    Lookups see the stored JSON, so ``data__order_id=7`` works as on a ``JSONField``.
    """

    def get_db_prep_value(
        self, value: Any, connection: Any, prepared: bool = False
    ) -> Any:
        """Encode the value; expressions and None pass as they are."""
        if isinstance(value, Encoded):
            value = json.loads(value)
        elif value is not None and not hasattr(value, "resolve_expression"):
            value = serialization.to_tree(value, what=self.name)
        return super().get_db_prep_value(value, connection, prepared)

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        """Store None as SQL NULL, not as a JSON null."""
        if value is None:
            return None
        return self.get_db_prep_value(value, connection)

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Decode what the database gives."""
        if value is None:
            return None
        if isinstance(value, str):
            value = json.loads(value)
        try:
            return serialization.from_tree(value)
        except (PayloadError, ObjectDoesNotExist):
            return value  # as ``seen`` does

    def deconstruct(self) -> Any:
        """Appear in migrations as a plain JSONField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs


class PayloadTextField(models.TextField):
    """JSON as text: the order of a dict's keys comes back, which binary JSON loses.

    For what code sees first as it made it, and then again as it was stored.
    """

    def get_prep_value(self, value: Any) -> Any:
        """Encode the value; text that went through the codec passes."""
        if value is None or isinstance(value, Encoded):
            return value
        return Encoded(serialization.dumps(value, what=self.name))

    def from_db_value(self, value: Any, expression: Any, connection: Any) -> Any:
        """Decode what the database gives."""
        return None if value is None else seen(value)

    def deconstruct(self) -> Any:
        """Appear in migrations as a plain TextField."""
        name, _, args, kwargs = super().deconstruct()
        return name, "django.db.models.TextField", args, kwargs
