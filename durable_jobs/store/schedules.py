"""Schedules: found when they are due, moved on in one statement, woken."""

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

#: What moves when a schedule fires.
MOVED = (
    "next_occurrence",
    "due_at",
    "last_fired_at",
    "last_run",
    "queued_occurrences",
    "missing_at",
)


def event_id(schedule: Schedule, slot: datetime) -> str:
    """Return the id of a slot's event: unique, so a slot cannot be fired twice."""
    return f"schedule:{schedule.pk}:{slot.isoformat()}"


def rows() -> QuerySet[Schedule]:
    """Return the schedules, with their data as it is stored."""
    found = db.rows(Schedule).defer("data")
    return found.annotate(data_text=Cast("data", TextField()))


def locked(chosen: QuerySet[Schedule], *, skip: bool = False) -> QuerySet[Schedule]:
    """Lock schedules inside the caller's transaction, where the database can.

    ``skip``: those that somebody else holds are passed over.
    """
    if not db.lockable():
        return chosen
    return chosen.select_for_update(skip_locked=skip, of=("self",))


def due(limit: int) -> list[Schedule]:
    """Lock the schedules that have to be looked at, the earliest first."""
    chosen = rows().filter(due_at__lte=clock.now()).order_by("due_at")
    return list(locked(chosen, skip=True)[:limit])


def move(schedules: Sequence[Schedule]) -> None:
    """Write what moved in locked schedules, in one statement."""
    copies = [
        # Each is there, and only MOVED is written: the rest stands for what a row must
        # have. Not as declared, for that one's place is taken, by itself.
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
    """Return which of these runs have not ended."""
    wanted = [run_id for run_id in run_ids if run_id is not None]
    if not wanted:
        return set()
    live = db.rows(Run).filter(pk__in=wanted, status__in=sorted(LIVE))
    return set(live.values_list("pk", flat=True))


def check_queued_occurrence(run: Run) -> None:
    """Have somebody look at the schedule whose next slot waits for this run's end."""
    kept: dict[str, Any] = run.event_meta or {}
    if kept.get("overlap") != "queue":
        return
    with db.atomic():
        waiting = locked(
            db.rows(Schedule).filter(
                pk=kept["schedule"], last_run=run.pk, due_at__gt=clock.now()
            ),
            # Who ends a run waits for nobody's schedule; the next look finds it.
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
    """Have those looked at whose function the code has again; return how many."""
    known = tuple(function_ids)
    if not _probe.evaluate([], known)["again"]:
        return 0
    look = Case(
        When(paused_at__isnull=True, then=Value(now)),
        default=None,
        output_field=DateTimeField(null=True),
    )
    return _missing(known).update(missing_at=None, due_at=look)


def put_off(schedule_id: int, moment: datetime) -> None:
    """Look at a schedule that made trouble again at a moment, not before."""
    rows = db.rows(Schedule).filter(pk=schedule_id)
    rows.filter(due_at__isnull=False).update(due_at=moment)
