"""The health of functions by their newest runs, and functions without code."""

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

#: Newest runs of one function that the list, and the function's page, read.
RECENT, LATEST = 50, 500
#: Failed runs that are grouped by error, and the groups that are shown.
FAILED, GROUPS = 100, 20
#: Live runs of each status that are searched for functions without code.
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
    "stopped_for",
)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The small columns of a run."""

    pk: uuid.UUID
    function: str
    status: str
    version: str
    queued_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    stopped_for: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionHealth:
    """The health of a function in the last 24 hours, by its newest runs.

    ``runs`` were queued in that time. Of the ``ended`` runs, ``failed`` have failed.
    ``typical`` is the median duration of the completed runs. ``capped``: there were
    more runs than counted. ``last`` is the newest run of any time.
    """

    runs: int
    ended: int
    failed: int
    typical: timedelta | None
    capped: bool
    last: RunSummary

    @property
    def failing(self) -> float | None:
        """Return the failed share of the ended runs, or None without ended runs."""
        return self.failed / self.ended if self.ended else None


def health(function_ids: Sequence[str]) -> dict[str, FunctionHealth]:
    """Return the health of functions with runs, by id."""
    rows = together(
        only(newest(one), RECENT).values_list(*_COLUMNS) for one in function_ids
    )
    found: dict[str, list[RunSummary]] = {}
    for row in rows:
        brief = RunSummary(*row)
        found.setdefault(brief.function, []).append(brief)
    return {one: health_of(briefs, RECENT) for one, briefs in found.items()}


def newest(function_id: str) -> QuerySet[Run]:
    """Return the runs of a function, newest first."""
    rows = visibility.runs().filter(function=function_id)
    return rows.order_by("-pk")


def latest(function_id: str) -> list[RunSummary]:
    """Return the newest runs of a function for its page."""
    rows = newest(function_id).values_list(*_COLUMNS)[:LATEST]
    return [RunSummary(*row) for row in rows]


def health_of(runs: Iterable[RunSummary], limit: int) -> FunctionHealth:
    """Return the health of a function from its runs, of which there is at least one."""
    briefs = sorted(runs, key=lambda run: run.pk, reverse=True)
    since = clock.now() - DAY
    today = [run for run in briefs if run.queued_at >= since]
    failed = sum(run.status == RunStatus.FAILED for run in today)
    times = sorted(
        run.ended_at - run.started_at - (run.stopped_for or timedelta())
        for run in today
        if run.status == RunStatus.COMPLETED and run.started_at and run.ended_at
    )
    return FunctionHealth(
        runs=len(today),
        ended=failed + sum(run.status == RunStatus.COMPLETED for run in today),
        failed=failed,
        typical=times[len(times) // 2] if times else None,
        capped=len(today) >= limit,
        last=briefs[0],
    )


# Rows of functions


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
    """Return the declared schedules by function, next due first."""
    rows = db.rows(Schedule).filter(declared=True, function__in=list(function_ids))
    found: dict[str, list[Schedule]] = {}
    for row in rows.defer("data", "queued_occurrences").order_by("due_at", "pk"):
        found.setdefault(row.function, []).append(row)
    return found


def lost(known: Collection[str]) -> list[str]:
    """Return ids of undeclared functions with live runs.

    The search covers the newest waiting and paused runs, and the first queued runs of
    each queue.
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


# Failures


@dataclass(slots=True)
class FailureGroup:
    """Runs that failed with the same type of error in the same step.

    ``step`` is empty for the function's own code. ``run`` is the newest run.
    """

    type: str
    step: str
    message: str
    run: uuid.UUID
    last: datetime
    count: int = 0


def error_groups(runs: Iterable[RunSummary]) -> list[FailureGroup]:
    """FailureGroup failed runs by error, most frequent first."""
    failed = [run for run in runs if run.status == RunStatus.FAILED][:FAILED]
    errors = _errors([run.pk for run in failed])
    groups: dict[tuple[str, str], FailureGroup] = {}
    for run in failed:
        kind, step, message = errors.get(run.pk, ("", "", ""))
        group = groups.setdefault(
            (kind, step), FailureGroup(kind, step, message, run.pk, run.queued_at)
        )
        group.count += 1
    found = sorted(groups.values(), key=lambda one: -one.count)[:GROUPS]
    _name_steps(found)
    return found


def _name_steps(groups: Iterable[FailureGroup]) -> None:
    """Replace the step keys from the errors with the names of the steps."""
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
