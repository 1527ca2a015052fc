"""Waiting approvals and the permissions that they need."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime

from durable_jobs.models import Wait, WaitKind
from durable_jobs.queries import visibility
from durable_jobs.store import db

_WAIT = Wait._meta.db_table
_OF = f"FROM {_WAIT} WHERE kind = '{WaitKind.APPROVAL.value}' AND name"
#: One index lookup per permission, however many approvals wait for each.
_NAMES = f"""
WITH RECURSIVE found(name) AS (
    SELECT MIN(name) {_OF} <> ''
    UNION ALL
    SELECT (SELECT MIN(name) {_OF} <> '' AND name > found.name)
    FROM found WHERE found.name IS NOT NULL
)
SELECT name FROM found WHERE name IS NOT NULL
"""  # noqa: S608  # our own names
#: Columns of a run that lists of approvals do not load.
_PAYLOADS = ("data", "output", "error", "event_meta")


def permissions() -> list[str]:
    """Return the distinct permissions of the waiting approvals."""
    with db.connection().cursor() as cursor:
        cursor.execute(_NAMES)
        return [name for (name,) in cursor.fetchall()]


def waiting(names: Iterable[str], after: int, limit: int) -> list[Wait]:
    """Return a page of waits for the permissions, oldest first.

    ``after`` is the primary key of the last wait of the previous page.
    """
    every = db.rows(Wait).filter(
        kind=WaitKind.APPROVAL, name__in=list(names), pk__gt=after
    )
    rows = visibility.of_runs(every)
    return list(rows.order_by("pk")[:limit])


def with_runs(waits: Sequence[Wait]) -> list[Wait]:
    """Set the runs of waits; leave out waits whose run does not exist."""
    rows = visibility.runs().defer(*_PAYLOADS)
    runs = rows.in_bulk({wait.run_id for wait in waits})
    known = [wait for wait in waits if wait.run_id in runs]
    for wait in known:
        wait.run = runs[wait.run_id]
    return known


def ends(waits: Sequence[Wait]) -> dict[tuple[uuid.UUID, str], datetime]:
    """Return the timeouts of the waiting steps, by run and step key."""
    rows = db.rows(Wait).filter(
        run_id__in={wait.run_id for wait in waits}, kind=WaitKind.TIMEOUT
    )
    found = rows.values_list("run_id", "step", "due_at")
    return {(run_id, step): due for run_id, step, due in found if due is not None}
