"""Schedules: lock the due ones, and write their next occurrences."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.db.models import (
    Case,
    DateTimeField,
    Exists,
    QuerySet,
    TextField,
    Value,
    When,
)
from django.db.models.functions import Cast

from durable_jobs import clock
from durable_jobs.models import Run, Schedule
from durable_jobs.statuses import LIVE
from durable_jobs.store import db, exists_probe

#: Fields that change when a schedule fires.
MOVED = (
    "next_occurrence",
    "due_at",
    "last_fired_at",
    "last_run",
    "queued_occurrences",
    "missing_at",
)


def event_id(schedule: Schedule, occurrence: datetime) -> str:
    """Return the event id of an occurrence. It is unique, so no run starts twice."""
    return f"schedule:{schedule.pk}:{occurrence.isoformat()}"


def rows() -> QuerySet[Schedule]:
    """Return the schedules with their data as JSON text."""
    found = db.rows(Schedule).defer("data")
    return found.annotate(data_text=Cast("data", TextField()))


def locked(chosen: QuerySet[Schedule], *, skip: bool = False) -> QuerySet[Schedule]:
    """Lock schedules in the caller's transaction, if the database has row locks.

    With ``skip``, leave out schedules that are locked already.
    """
    if not db.lockable():
        return chosen
    return chosen.select_for_update(skip_locked=skip, of=("self",))


def due(limit: int) -> list[Schedule]:
    """Lock up to ``limit`` due schedules, earliest first."""
    chosen = rows().filter(due_at__lte=clock.now()).order_by("due_at")
    return list(locked(chosen, skip=True)[:limit])


def move(schedules: Sequence[Schedule]) -> None:
    """Write the ``MOVED`` fields of locked schedules in one statement."""
    copies = [
        # All rows exist, and only MOVED is written. The other fields satisfy NOT NULL.
        # ``declared`` stays False, so that the copy does not violate the unique index.
        Schedule(
            pk=one.pk,
            function=one.function,
            cron=one.cron,
            tz=one.tz,
            **{name: getattr(one, name) for name in MOVED},
        )
        for one in schedules
    ]
    db.rows(Schedule).bulk_create(
        copies, update_conflicts=True, unique_fields=["id"], update_fields=MOVED
    )


def live_runs(run_ids: Iterable[uuid.UUID | None]) -> set[uuid.UUID]:
    """Return those of the runs that have not ended."""
    wanted = [run_id for run_id in run_ids if run_id is not None]
    if not wanted:
        return set()
    live = db.rows(Run).filter(pk__in=wanted, status__in=sorted(LIVE))
    return set(live.values_list("pk", flat=True))


def check_queued_occurrence(run: Run) -> None:
    """Make a schedule due if its next occurrence is queued behind this run."""
    meta: dict[str, Any] = run.event_meta or {}
    if meta.get("overlap") != "queue":
        return
    with db.atomic():
        waiting = locked(
            db.rows(Schedule).filter(
                pk=meta["schedule"], last_run=run.pk, due_at__gt=clock.now()
            ),
            # The end of a run must not wait for a schedule; the next tick finds it.
            skip=True,
        )
        for schedule in waiting:
            if schedule.queued_occurrences:
                rows = db.rows(Schedule).filter(pk=schedule.pk)
                rows.update(due_at=clock.now())


def _missing(function_ids: Iterable[str]) -> QuerySet[Schedule]:
    return db.rows(Schedule).filter(
        missing_at__isnull=False, declared=False, function__in=list(function_ids)
    )


_probe = exists_probe.Probe(
    lambda function_ids: {"again": Exists(_missing(function_ids))}
)


def reactivate_found(function_ids: Iterable[str], now: datetime) -> int:
    """Make schedules due whose function is declared again; return their number."""
    known = tuple(function_ids)
    if not _probe.evaluate([], known)["again"]:
        return 0
    due_at = Case(
        When(paused_at__isnull=True, then=Value(now)),
        default=None,
        output_field=DateTimeField(null=True),
    )
    return _missing(known).update(missing_at=None, due_at=due_at)


def postpone(schedule_id: int, moment: datetime) -> None:
    """Delay a schedule after an error."""
    rows = db.rows(Schedule).filter(pk=schedule_id)
    rows.filter(due_at__isnull=False).update(due_at=moment)
