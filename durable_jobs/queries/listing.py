"""Runs in lists, and as JSON for programs."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from durable_jobs import serialization
from durable_jobs.models import Run
from durable_jobs.models.fields import Stored
from durable_jobs.queries.timeline import timeline
from durable_jobs.store import db


def recent(
    *, function: str | None = None, status: str | None = None, limit: int = 20
) -> list[Run]:
    """Return the newest runs, without what they were given and what they gave."""
    rows = db.rows(Run).defer("data", "output", "error", "event_meta")
    if function is not None:
        rows = rows.filter(function=function)
    if status is not None:
        rows = rows.filter(status=status)
    return list(rows.order_by("-pk")[:limit])


def as_json(run: Run) -> dict[str, Any]:
    """Return what a list shows of a run."""
    names = ("status", "reason", "trigger", "queue", "attempt", "claim_count")
    times = ("queued_at", "due_at", "started_at", "ended_at")
    return {
        "id": str(run.pk),
        "function": run.function,
        **{name: getattr(run, name) for name in names},
        "crash_count": run.worker_losses,
        **{name: _plain(getattr(run, name)) for name in times},
        "parent": None if run.parent_id is None else str(run.parent_id),
    }


def described(run: Run) -> dict[str, Any]:
    """Return all of a run, its data and output as they are stored, and its steps."""
    return {
        **as_json(run),
        "data": _stored(run, "data"),
        "output": _stored(run, "output"),
        "error": run.error,
        "steps": [
            {name: _plain(value) for name, value in asdict(row).items()}
            for row in timeline(run)
        ],
    }


def _stored(run: Run, name: str) -> Any:
    held = run.__dict__.get(name)
    if isinstance(held, Stored):
        return held.tree()
    value = getattr(run, name)
    what = "a payload"
    return None if value is None else serialization.to_tree(value, what=what, own=True)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value
