"""How functions do, by their newest runs; and which ones the code has lost."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import QuerySet
from django.db.models.fields.json import KeyTextTransform

from durable_jobs import clock, ids
from durable_jobs.models import Pause, Run, Schedule, Step
from durable_jobs.queries import visibility
from durable_jobs.queries.union import only, together
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db

#: Runs of one function that a list, and its own page, go by.
RECENT, LATEST = 50, 500
#: Failed runs that are grouped by what they failed of, and groups that are shown.
FAILED, GROUPS = 100, 20
#: Live runs of each kind among which functions are looked for that the code lacks.
LIVE_LOOKED_THROUGH = 1000
DAY = timedelta(days=1)

_COLUMNS = (
    "pk",
    "function",
    "status",
    "version",
    "queued_at",
    "started_at",
    "ended_at",
)


@dataclass(frozen=True, slots=True)
class Brief:
    """A run, without all that is long."""

    pk: uuid.UUID
    function: str
    status: str
    version: str
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionHealth:
    """How the newest runs of a function did in the last 24 hours.

    ``runs`` of them came in that time, ``failed`` of those ``ended`` have failed;
    ``typical`` is the median time of those that completed. ``capped``: there were more.
    ``last`` is the newest run, whenever it came.
    """

    runs: int
    ended: int
    failed: int
    typical: timedelta | None
    capped: bool
    last: Brief

    @property
    def failing(self) -> float | None:
        """Return the share that failed, None when none has ended."""
        return self.failed / self.ended if self.ended else None


def health(function_ids: Sequence[str]) -> dict[str, FunctionHealth]:
    """Return how functions do, by id; those without a run are not in it."""
    rows = together(
        only(newest(one), RECENT).values_list(*_COLUMNS) for one in function_ids
    )
    found: dict[str, list[Brief]] = {}
    for row in rows:
        brief = Brief(*row)
        found.setdefault(brief.function, []).append(brief)
    return {one: health_of(briefs, RECENT) for one, briefs in found.items()}


def newest(function_id: str) -> QuerySet[Run]:
    """Return the runs of a function, the newest first."""
    rows = visibility.runs().filter(function=function_id)
    return rows.order_by("-pk")


def latest(function_id: str) -> list[Brief]:
    """Return the newest runs of a function, which its page goes by."""
    rows = newest(function_id).values_list(*_COLUMNS)[:LATEST]
    return [Brief(*row) for row in rows]


def health_of(runs: Iterable[Brief], looked_through: int) -> FunctionHealth:
    """Return how some runs of one function did, of which there is at least one."""
    briefs = sorted(runs, key=lambda run: run.pk, reverse=True)
    since = clock.now() - DAY
    today = [run for run in briefs if run.queued_at >= since]
    failed = sum(run.status == RunStatus.FAILED for run in today)
    times = sorted(
        run.ended_at - run.started_at
        for run in today
        if run.status == RunStatus.COMPLETED and run.started_at and run.ended_at
    )
    return FunctionHealth(
        runs=len(today),
        ended=failed + sum(run.status == RunStatus.COMPLETED for run in today),
        failed=failed,
        typical=times[len(times) // 2] if times else None,
        capped=len(today) >= looked_through,
        last=briefs[0],
    )


# What the code does not say


def pauses(function_ids: Collection[str] | None = None) -> dict[str, list[Pause]]:
    """Return the pauses of functions and of their keys, by function."""
    every = db.rows(Pause).exclude(kind=Pause.QUEUE)
    rows = visibility.pauses(every)
    if function_ids is not None:
        rows = rows.filter(name__in=list(function_ids))
    found: dict[str, list[Pause]] = {}
    for row in rows.order_by("name", "key", "pk")[:LIVE_LOOKED_THROUGH]:
        found.setdefault(row.name, []).append(row)
    return found


def crons(function_ids: Collection[str]) -> dict[str, list[Schedule]]:
    """Return the schedules that the code declares, by function, the next first."""
    rows = db.rows(Schedule).filter(declared=True, function__in=list(function_ids))
    found: dict[str, list[Schedule]] = {}
    for row in rows.defer("data", "queued_occurrences").order_by("due_at", "pk"):
        found.setdefault(row.function, []).append(row)
    return found


def lost(known: Collection[str]) -> list[str]:
    """Return ids of functions that live runs name and the code does not have.

    Those that wait or are paused are looked for among the newest, those that are queued
    among the first in their queues.
    """
    rows = visibility.runs()
    queued = rows.filter(status=RunStatus.QUEUED)
    parts = (
        rows.filter(status=RunStatus.WAITING).order_by("-pk"),
        rows.filter(status=RunStatus.PAUSED).order_by("-pk"),
        queued.filter(backlog__isnull=True).order_by("queue", "run_order", "pk"),
        queued.filter(backlog__lt=0).order_by("due_at", "pk"),
    )
    found = together(
        only(part, LIVE_LOOKED_THROUGH)
        .exclude(function__in=list(known))
        .values_list("function", flat=True)
        .distinct()
        for part in parts
    )
    return sorted(set(found))


# What fails


@dataclass(slots=True)
class Group:
    """Runs that failed of the same: an error's type, in the same step.

    ``step`` is empty for the function's own code; ``run`` is the newest of them.
    """

    type: str
    step: str
    message: str
    run: uuid.UUID
    last: datetime
    count: int = 0


def error_groups(runs: Iterable[Brief]) -> list[Group]:
    """Return what the failed ones of some runs failed of, the most frequent first."""
    failed = [run for run in runs if run.status == RunStatus.FAILED][:FAILED]
    errors = _errors([run.pk for run in failed])
    groups: dict[tuple[str, str], Group] = {}
    for run in failed:
        kind, step, message = errors.get(run.pk, ("", "", ""))
        group = groups.setdefault(
            (kind, step), Group(kind, step, message, run.pk, run.queued_at)
        )
        group.count += 1
    found = sorted(groups.values(), key=lambda one: -one.count)[:GROUPS]
    _name_steps(found)
    return found


def _name_steps(groups: Iterable[Group]) -> None:
    """Put the names of steps in the place of their keys, which errors have."""
    keys = {ids.step_pk(one.run, one.step): one for one in groups if one.step}
    rows = db.rows(Step).filter(pk__in=list(keys))
    for pk, name in rows.values_list("pk", "name"):
        keys[pk].step = name


def _errors(run_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, tuple[str, ...]]:
    rows: Any = visibility.runs().filter(pk__in=run_ids)
    names = ("type", "step", "message")
    parts = {f"error_{name}": KeyTextTransform(name, "error") for name in names}
    values = rows.annotate(**parts).values_list("pk", *parts)
    return {pk: tuple(str(one or "") for one in said) for pk, *said in values}
