"""Live workers, the queues they serve, and the functions that no worker has."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import QuerySet

from durable_jobs import clock
from durable_jobs.models import MissingFunction, Worker
from durable_jobs.store import db

#: The maximum age of the last heartbeat of a live worker.
SEEN = timedelta(minutes=1)


def alive() -> QuerySet[Worker]:
    """Return the workers with a recent heartbeat."""
    since = clock.now() - SEEN
    return db.rows(Worker).filter(kind="worker", seen_at__gte=since)


def functions() -> set[str] | None:
    """Return the functions of the live workers, or None if they are not known.

    Workers of an older version do not report their functions.
    """
    known: set[str] = set()
    for names in alive().order_by().values_list("functions", flat=True).distinct():
        if names is None:
            return None
        known.update(names)
    return known


def queues() -> set[str]:
    """Return the queues that live workers serve."""
    lists = alive().order_by().values_list("queues", flat=True).distinct()
    return {name for names in lists for name in names}


def missing() -> QuerySet[MissingFunction]:
    """Return the functions that a claim found and no live worker has."""
    return db.rows(MissingFunction)


def record_missing(function: str) -> None:
    """Record that no live worker has a function, if that is known."""
    known = functions()
    if known is None or function in known:
        return
    row = MissingFunction(function=function, since=clock.now())
    missing().bulk_create([row], ignore_conflicts=True)


def delete_missing(names: Iterable[str]) -> None:
    """Delete the records of functions that are not missing any more."""
    missing().filter(function__in=list(names))._raw_delete(db.alias())


def missing_since(function: str) -> datetime | None:
    """Return since when no worker has a function, or None if it is not missing."""
    rows = missing().filter(function=function)
    return rows.values_list("since", flat=True).first()
