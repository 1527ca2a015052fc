"""Pause, resume, redrive, copy and delete runs."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

from django.db.models import Case, F, TextField, Value, When
from django.db.models.functions import Cast, Greatest

from durable_jobs import clock, ids
from durable_jobs.failpoints import failpoint
from durable_jobs.models import (
    AdmissionState,
    BufferedEvent,
    FailedAttempt,
    Run,
    Slot,
    Step,
    Subject,
    Wait,
    WaitKind,
)
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import REDRIVABLE, RunStatus, StepStatus, sources
from durable_jobs.store import db, waits
from durable_jobs.store import limits as limit_rows
from durable_jobs.store.leases import Lease


def pause(run_id: uuid.UUID, reason: str, lease: Lease | None = None) -> bool:
    """Pause a live run; return whether this call did it.

    A current attempt records the step that it executes, and then stops.
    """
    rows = db.rows(Run).filter(pk=run_id, status__in=sources(RunStatus.PAUSED))
    changes: dict[str, Any] = {}
    if lease is not None:
        rows = rows.filter(lease_token=lease.token)
        changes = {"lease_token": None, "lease_until": None, "crash_count": 0}
    with db.atomic():
        done = bool(rows.update(status=RunStatus.PAUSED, reason=reason, **changes))
        if done:
            limit_rows.release_unleased_step_slots(run_id)
    return done


def resume(run_id: uuid.UUID) -> bool:
    """Resume a paused run; return whether this call did it.

    An attempt that has not stopped yet continues with its lease, so that two attempts
    of the run never overlap. Otherwise the run is queued, not before its due time.
    """
    now = clock.now()
    paused = db.rows(Run).filter(pk=run_id, status=RunStatus.PAUSED)
    with db.atomic():
        rows = paused.select_for_update(no_key=True) if db.lockable() else paused
        found = rows.values_list("lease_until").first()
        if found is None:
            return False
        if found[0] is not None and found[0] >= now:
            return bool(paused.update(status=RunStatus.RUNNING, reason=""))
        # The slots of an attempt whose lease has expired.
        limit_rows.release_slots([run_id], steps_only=True)
        return bool(
            paused.update(
                status=RunStatus.QUEUED,
                backlog=F("requeue_to"),
                reason="",
                due_at=Greatest("due_at", Value(now)),
                lease_token=None,
                lease_until=None,
                crash_count=0,
                database_errors=0,
            )
        )


def make_due_now(
    run_id: uuid.UUID, kinds: Collection[WaitKind], *, retries: bool
) -> bool:
    """Make timed waits of a live run due now; return whether there were any.

    This includes waits of the given kinds, and the delayed start of a queued run: its
    retry with ``retries``, otherwise its first start.
    """
    now = clock.now()
    with db.atomic():
        if not waits.lock_runs([run_id]):
            return False
        rows = db.rows(Wait).filter(
            run_id=run_id, kind__in=sorted(kinds), due_at__gt=now
        )
        keys = list(rows.values_list("step", flat=True))
        db.rows(Step).filter(run_id=run_id, key__in=keys).update(due_at=now)
        queued = db.rows(Run).filter(pk=run_id, status=RunStatus.QUEUED, due_at__gt=now)
        queued = queued.filter(attempt__gt=0) if retries else queued.filter(attempt=0)
        return bool(rows.update(due_at=now) + queued.update(due_at=now, run_order=now))


def redrive(
    run: Run, forget: Sequence[str], queue: str, limits: Sequence[Wait]
) -> bool:
    """Continue an ended run; return whether this call did it.

    The steps in ``forget`` and the open steps are executed again. The run is due at
    ``run.due_at``. ``limits`` are the waits that can end it early, as at its start.
    """
    with db.atomic():
        rows = db.rows(Run).filter(pk=run.pk, status__in=sorted(REDRIVABLE))
        changed = rows.update(
            status=RunStatus.QUEUED,
            backlog=_admission_state(),
            requeue_to=_admission_state(),
            reason="",
            error=None,
            ended_at=None,
            stopped_for=_stopped_for(run),
            due_at=run.due_at,
            queue=queue,
            attempt=0,
            crash_count=0,
            database_errors=0,
            wake_requested=False,
        )
        if not changed:
            return False
        recorded = db.rows(Step).filter(run_id=run.pk)
        recorded.filter(status=StepStatus.CANCELLED)._raw_delete(db.alias())
        recorded.filter(key__in=list(forget))._raw_delete(db.alias())
        db.rows(Wait).bulk_create(limits)
        failpoint("redrive.written", run.function)
        return True


def _stopped_for(run: Run) -> timedelta | None:
    """Return for how long a run that is redriven now had ended, each time."""
    if run.started_at is None or run.ended_at is None:
        return run.stopped_for
    last = max(run.due_at - run.ended_at, timedelta())
    return (run.stopped_for or timedelta()) + last


def _admission_state() -> Case:
    """Return the backlog of a redriven run, whose limits are checked again."""
    return Case(
        When(flow__isnull=False, then=Value(AdmissionState.NEW.value)),
        default=Value(None),
    )


def stored_data(run_id: uuid.UUID) -> str:
    """Return the stored JSON of a run's data, which may refer to deleted rows."""
    rows = db.rows(Run).filter(pk=run_id)
    return rows.values_list(Cast("data", TextField()), flat=True).get() or "{}"


def copy_steps(source: Run, target: Run, keys: Sequence[str]) -> None:
    """Copy ended steps of one run to another run."""
    rows = db.rows(Step).filter(run=source, key__in=list(keys))
    # As text: a payload may refer to deleted rows, and no row is fetched.
    texts = {f"{name}_text": Cast(name, TextField()) for name in ("input", "output")}
    copies = []
    columns = rows.defer("input", "output").annotate(
        parent_key=F("parent__key"), **texts
    )
    for step in columns:
        for name in ("input", "output"):
            text = getattr(step, f"{name}_text")
            setattr(step, name, None if text is None else EncodedJSON(text))
        step.pk = ids.step_pk(target.pk, step.key)
        step.run = target
        parent = step.parent_key
        step.parent_id = ids.step_pk(target.pk, parent) if parent else None
        copies.append(step)
    db.rows(Step).bulk_create(copies)


def delete(run_ids: Sequence[uuid.UUID]) -> None:
    """Delete runs and their dependent rows."""
    for model in (Wait, FailedAttempt, Step, Subject, Slot, BufferedEvent):
        db.rows(model).filter(run_id__in=run_ids)._raw_delete(db.alias())
    db.rows(Run).filter(pk__in=run_ids)._raw_delete(db.alias())
