"""Runs, steps and schedules for programs, each page by a constant number of queries.

Payloads are read as they lie in the database, past the codec: that imports no class,
fetches no instance, and gives also what the code could not read any more.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from typing import Any

from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from durable_jobs import ids
from durable_jobs.models import STEP_PAYLOADS, FailedAttempt, Run, Schedule, Step
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.store import db

#: Columns that may be large.
PAYLOADS = ("data", "output", "error", "event_meta", "flow")
MOST_ATTEMPTS = 100


def runs_page(
    chosen: RunFilter, limit: int, below: uuid.UUID | None
) -> tuple[list[Run], uuid.UUID | None]:
    """Return the newest runs below an id, and the id below which the next ones are."""
    rows = chosen.narrow(visibility.runs()).defer(*PAYLOADS)
    if below is not None:
        rows = rows.filter(pk__lt=below)
    found = list(rows.order_by("-pk")[: limit + 1])
    return found[:limit], found[limit - 1].pk if len(found) > limit else None


def schedules_page(
    function: str | None, limit: int, above: int | None
) -> tuple[list[Schedule], int | None]:
    """Return the schedules above an id, and the id above which the next ones are."""
    every = visibility.schedules(db.rows(Schedule))
    rows = every.defer("data", "queued_occurrences").order_by("pk")
    if function is not None:
        rows = rows.filter(function=function)
    if above is not None:
        rows = rows.filter(pk__gt=above)
    found = list(rows[: limit + 1])
    return found[:limit], found[limit - 1].pk if len(found) > limit else None


def run(key: uuid.UUID) -> Run | None:
    """Return a run without what it was given and what it gave."""
    found: Run | None = visibility.runs().filter(pk=key).defer(*PAYLOADS).first()
    return found


def schedule(key: int) -> Schedule | None:
    """Return a schedule."""
    rows = visibility.schedules(db.rows(Schedule))
    found: Schedule | None = rows.filter(pk=key).first()
    return found


def payloads(of: Run | Step, names: Iterable[str]) -> dict[str, Any]:
    """Return columns of a row as they are stored; None for what is not there."""
    texts = {f"{name}_text": Cast(name, TextField()) for name in names}
    rows: QuerySet[Any] = type(of)._base_manager.using(db.alias()).filter(pk=of.pk)
    row = rows.values(**texts).first() or {}
    return {name: _value(row.get(f"{name}_text")) for name in names}


def steps(of: Run) -> list[Step]:
    """Return a run's steps in the order of recording, without their payloads."""
    rows = db.rows(Step).filter(run_id=of.pk)
    return list(rows.order_by("position", "pk").defer(*STEP_PAYLOADS))


def step(of: Run, key: str) -> Step | None:
    """Return a step of a run by its key, without its payloads."""
    rows = db.rows(Step).filter(pk=ids.step_pk(of.pk, key))
    return rows.defer(*STEP_PAYLOADS).first()


def step_of_any(key: uuid.UUID, kind: str) -> Step | None:
    """Return a step of a kind by its own id, whatever its run."""
    rows = visibility.of_runs(db.rows(Step))
    return rows.filter(pk=key, kind=kind).defer(*STEP_PAYLOADS).first()


def attempts(of: Step) -> list[FailedAttempt]:
    """Return the first failed attempts of a step."""
    rows = db.rows(FailedAttempt).filter(run_id=of.run_id, step=of.key)
    return list(rows.order_by("pk")[:MOST_ATTEMPTS])


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)
