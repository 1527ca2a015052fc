"""Rows of runs, steps and failed attempts, for lists and for programs.

Each page takes a constant number of queries. Payloads are read as stored JSON, without
the codec: no class is imported and no instance fetched, and unreadable payloads are
returned as well.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from durable_jobs import ids, serialization
from durable_jobs.models import STEP_PAYLOADS, FailedAttempt, Run, Step
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.queries.timeline import timeline
from durable_jobs.serialization.stored import StoredPayload
from durable_jobs.store import db

#: Columns that may be large.
PAYLOADS = ("data", "output", "error", "event_meta", "flow")
MAX_ATTEMPTS = 100


def recent(
    *, function: str | None = None, status: str | None = None, limit: int = 20
) -> list[Run]:
    """Return the newest runs without their payloads."""
    rows = db.rows(Run).defer("data", "output", "error", "event_meta")
    if function is not None:
        rows = rows.filter(function=function)
    if status is not None:
        rows = rows.filter(status=status)
    return list(rows.order_by("-pk")[:limit])


def as_json(run: Run) -> dict[str, Any]:
    """Return the fields of a run that lists show."""
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
    """Return a run with its stored data and output, and its steps."""
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
    stored = run.__dict__.get(name)
    if isinstance(stored, StoredPayload):
        return stored.tree()
    value = getattr(run, name)
    what = "a payload"
    return (
        None if value is None else serialization.to_tree(value, what=what, wrapped=True)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value


def runs_page(
    chosen: RunFilter, limit: int, below: uuid.UUID | None
) -> tuple[list[Run], uuid.UUID | None]:
    """Return a page of the newest runs below an id, and the ``below`` of the next."""
    rows = chosen.narrow(visibility.runs()).defer(*PAYLOADS)
    if below is not None:
        rows = rows.filter(pk__lt=below)
    found = list(rows.order_by("-pk")[: limit + 1])
    return found[:limit], found[limit - 1].pk if len(found) > limit else None


def run(key: uuid.UUID) -> Run | None:
    """Return a run without its payloads, or None."""
    found: Run | None = visibility.runs().filter(pk=key).defer(*PAYLOADS).first()
    return found


def payloads(of: Run | Step, names: Iterable[str]) -> dict[str, Any]:
    """Return the stored JSON of columns by name, or None for SQL NULL."""
    texts = {f"{name}_text": Cast(name, TextField()) for name in names}
    rows: QuerySet[Any] = type(of)._base_manager.using(db.alias()).filter(pk=of.pk)
    row = rows.values(**texts).first() or {}
    return {name: _value(row.get(f"{name}_text")) for name in names}


def steps(of: Run) -> list[Step]:
    """Return the steps of a run in the order of recording, without payloads."""
    rows = db.rows(Step).filter(run_id=of.pk)
    return list(rows.order_by("position", "pk").defer(*STEP_PAYLOADS))


def step(of: Run, key: str) -> Step | None:
    """Return a step of a run by key, without payloads, or None."""
    rows = db.rows(Step).filter(pk=ids.step_pk(of.pk, key))
    return rows.defer(*STEP_PAYLOADS).first()


def step_of_any(key: uuid.UUID, kind: str) -> Step | None:
    """Return a step of a kind by its primary key, or None."""
    rows = visibility.of_runs(db.rows(Step))
    return rows.filter(pk=key, kind=kind).defer(*STEP_PAYLOADS).first()


def attempts(of: Step) -> list[FailedAttempt]:
    """Return the first failed attempts of a step."""
    rows = db.rows(FailedAttempt).filter(run_id=of.run_id, step=of.key)
    return list(rows.order_by("pk")[:MAX_ATTEMPTS])


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)
