"""References to rows: a saved model instance is stored as its model and key."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models, router, transaction

from durable_jobs.exceptions import PayloadError


class Reference(NamedTuple):
    """A row: ``app_label.model``, primary key, and database alias."""

    label: str
    key: Any
    alias: str | None


def fetch(references: Iterable[Reference]) -> Mapping[Reference, Any]:
    """Return a new instance for each reference, with one query per model and database.

    Raise the model's ``DoesNotExist`` if a row was deleted, since None could be a
    result. Raise ``PayloadError`` if a model no longer exists.
    """
    groups: dict[tuple[str, str | None], list[Any]] = defaultdict(list)
    for reference in references:
        groups[reference.label, reference.alias].append(reference.key)
    rows = {}
    for (label, alias), keys in groups.items():
        _check_place(label, alias)
        try:
            model = apps.get_model(label)
        except (LookupError, ValueError) as error:
            raise PayloadError(
                f"A stored value refers to the model {label!r}: expected one that is "
                f"installed. {error}"
            ) from error
        for key in keys:
            _check_key(model, key)
        found = _rows(model, alias or router.db_for_read(model), keys)
        for key in keys:
            # An instance that was created with pk="7" has a string key until it is
            # loaded.
            row = found.get(key) or found.get(model._meta.pk.to_python(key))
            if row is None:
                raise model.DoesNotExist(
                    f"A stored value refers to the {label} with the key {key!r}, which "
                    "was deleted."
                )
            rows[Reference(label, key, alias)] = row
    return rows


def _rows(model: type[models.Model], alias: str, keys: list[Any]) -> dict[Any, Any]:
    """Load rows. An error does not break the caller's transaction."""
    rows = model._base_manager.using(alias)
    if not connections[alias].in_atomic_block:
        return rows.in_bulk(keys)
    with transaction.atomic(using=alias):
        return rows.in_bulk(keys)


def _check_place(label: Any, alias: Any) -> None:
    """Raise ``PayloadError`` unless the label and the alias are valid."""
    if not isinstance(label, str):
        raise PayloadError(
            f"A stored value refers to the model {label!r:.200}: expected a label."
        )
    if alias is not None and alias not in settings.DATABASES:
        raise PayloadError(
            f"A stored value refers to the database {alias!r:.200}: expected one of "
            f"{', '.join(settings.DATABASES)}."
        )


def _check_key(model: type[models.Model], key: Any) -> None:
    """Raise ``PayloadError`` unless rows of the model can have this key."""
    field = model._meta.pk
    try:
        value = field.to_python(key)
        field.run_validators(value)
        text = value if isinstance(value, str) else ""
        fits = text.encode().find(b"\0") < 0
    except (ValidationError, ValueError, TypeError, OverflowError):
        fits = False
    if not fits:
        raise PayloadError(
            f"A stored value refers to the {model._meta.label} with the key "
            f"{key!r:.200}: expected a valid {type(field).__name__} value."
        )
