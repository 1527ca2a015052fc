"""Bulk writes with events: ``durable.track(queryset).update(…)``.

``QuerySet.update``, ``bulk_create`` and ``bulk_update`` send no signals, so they start
no ``ModelChange`` functions. ``track`` starts these in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import transaction
from django.db.models import Model, QuerySet

from durable_jobs.definitions.events import MODEL_CREATED, MODEL_UPDATED
from durable_jobs.events import model_waits
from durable_jobs.events.model_changes import Change, Values, _names, difference, record
from durable_jobs.exceptions import ConfigurationError


class Tracked:
    """A queryset whose bulk writes start ``ModelChange`` functions."""

    def __init__(self, queryset: QuerySet[Any]) -> None:
        if not isinstance(queryset, QuerySet):
            msg = f"durable.track() takes a queryset, got {queryset!r:.80}."
            raise ConfigurationError(msg)
        self._rows = queryset

    def update(self, **values: Any) -> int:
        """Update the rows; return the number of matched rows."""
        with transaction.atomic(using=self._rows.db):
            before = self._snapshot(self._rows)
            count = (
                self._rows.model._base_manager.using(self._rows.db)
                .filter(pk__in=list(before))
                .update(**values)
            )
            self._updated(before)
        return int(count)

    def bulk_update(self, objs: Iterable[Model], fields: Iterable[str]) -> int:
        """Update the given fields of objects; return the number of matched rows."""
        chosen = list(objs)
        with transaction.atomic(using=self._rows.db):
            before = self._snapshot(self._rows.filter(pk__in=[o.pk for o in chosen]))
            count = self._rows.bulk_update(chosen, list(fields))
            self._updated(before)
        return count

    def bulk_create(self, objs: Iterable[Model], **options: Any) -> list[Model]:
        """Insert the objects and return them."""
        with transaction.atomic(using=self._rows.db):
            made = self._rows.bulk_create(list(objs), **options)
            stored = self._snapshot(
                self._rows.model._base_manager.using(self._rows.db).filter(
                    pk__in=[one.pk for one in made if one.pk is not None]
                )
            )
            changes = []
            for one in made:
                if one.pk in stored:
                    change = Change(one, MODEL_CREATED)
                    change.fields = difference(None, stored[one.pk])
                    change.values = stored[one.pk]
                    changes.append(change)
            record(changes)
        return made

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete the rows.

        Django sends a signal per row, which starts the functions.
        """
        return self._rows.delete()

    def _snapshot(self, rows: QuerySet[Any]) -> dict[Any, Values]:
        """Return the values of rows, locked if the database supports it."""
        chosen = rows.order_by().select_for_update()
        values = chosen.values(*_names(rows.model))
        key = rows.model._meta.pk.name
        return {value[key]: value for value in values}

    def _updated(self, before: dict[Any, Values]) -> None:
        manager = self._rows.model._base_manager.using(self._rows.db)
        instances = manager.in_bulk(list(before))
        after = self._snapshot(manager.filter(pk__in=list(before)))
        changes = []
        for key, instance in instances.items():
            change = Change(instance, MODEL_UPDATED)
            change.fields = difference(before[key], after[key])
            change.values = after[key]
            changes.append(change)
            model_waits.saved(self._rows.model, instance)
        record(changes)
