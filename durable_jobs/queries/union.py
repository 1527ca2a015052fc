"""Combine the same bounded query for many values in one statement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet

from durable_jobs.store import db

#: Maximum of parts in a statement. SQLite allows 500.
MAX_PARTS = 400


def together(parts: Iterable[QuerySet[Any]]) -> list[Any]:
    """Return the rows of all parts, which have the same columns."""
    every = list(parts)[:MAX_PARTS]
    if not every:
        return []
    first, *rest = every
    rows = first.union(*rest, all=True) if rest else first
    return list(rows.order_by())


def only(rows: QuerySet[Any], most: int) -> QuerySet[Any]:
    """Return the first ``most`` rows as a part. A slice cannot be part of a union."""
    chosen = rows.values("pk")[:most]
    every: QuerySet[Any] = rows.model._default_manager.using(db.alias())
    return every.filter(pk__in=chosen).order_by()
