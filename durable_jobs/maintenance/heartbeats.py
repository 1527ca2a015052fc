"""Heartbeats of workers and of the tick."""

from __future__ import annotations

from collections.abc import Sequence

from durable_jobs import clock
from durable_jobs.models import Worker
from durable_jobs.store import db


def heartbeat(
    name: str,
    kind: str,
    queues: Sequence[str] = (),
    functions: Sequence[str] | None = None,
) -> None:
    """Record that a process is alive now."""
    now = clock.now()
    rows = db.rows(Worker)
    if not rows.filter(name=name).update(seen_at=now):
        first = Worker(
            name=name,
            kind=kind,
            queues=[*queues],
            functions=None if functions is None else [*functions],
            seen_at=now,
            started_at=now,
        )
        rows.bulk_create([first], ignore_conflicts=True)


def deregister(name: str) -> None:
    """Remove the row of a process that stops."""
    rows = db.rows(Worker).filter(name=name)
    rows._raw_delete(db.alias())
