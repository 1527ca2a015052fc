"""Which workers are alive, what they serve, and the functions that no worker has."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import QuerySet

from durable_jobs import clock
from durable_jobs.models import MissingFunction, Worker
from durable_jobs.store import db

#: How long ago a worker may have been seen to count as alive.
SEEN = timedelta(minutes=1)


def alive() -> QuerySet[Worker]:
    """Return the workers that were seen a moment ago."""
    since = clock.now() - SEEN
    return db.rows(Worker).filter(kind="worker", seen_at__gte=since)


def functions() -> set[str] | None:
    """Return the functions that living workers have; None where one does not say.

    Workers of an earlier release do not say.
    """
    known: set[str] = set()
    for names in alive().order_by().values_list("functions", flat=True).distinct():
        if names is None:
            return None
        known.update(names)
    return known


def queues() -> set[str]:
    """Return the queues that living workers serve."""
    lists = alive().order_by().values_list("queues", flat=True).distinct()
    return {name for names in lists for name in names}


def missing() -> QuerySet[MissingFunction]:
    """Return the functions that some worker lacked and no worker had then."""
    return db.rows(MissingFunction)


def record_missing(function: str) -> None:
    """Note since when no worker has a function, unless one has it or does not say."""
    known = functions()
    if known is None or function in known:
        return
    row = MissingFunction(function=function, since=clock.now())
    missing().bulk_create([row], ignore_conflicts=True)


def delete_missing(names: Iterable[str]) -> None:
    """Note that these functions are not missing any more."""
    missing().filter(function__in=list(names))._raw_delete(db.alias())


def missing_since(function: str) -> datetime | None:
    """Return since when no worker has a function; None if it is not known to be so."""
    rows = missing().filter(function=function)
    return rows.values_list("since", flat=True).first()
