"""Repair invariant violations, for example after a restored backup or manual changes.

Each function repairs one row if it is still invalid, and returns whether it did.
"""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import F, Model

from durable_jobs import clock, ids
from durable_jobs.models import Run, Step, Wait, WaitKind
from durable_jobs.statuses import STEP_ENDED, TERMINAL, RunStatus, StepStatus
from durable_jobs.store import db, runs, waits
from durable_jobs.store.waits import NewWait, WaitOutcome

#: Kinds of waits that end a run instead of waking it.
ENDING = (WaitKind.CANCEL, WaitKind.START_BY, WaitKind.FINISH_BY)
#: Statuses with a lease. A paused run keeps its lease until its attempt has stopped.
STATUSES_WITH_LEASE = (RunStatus.RUNNING, RunStatus.PAUSED)


def requeue(run: Run) -> bool:
    """Queue a run that is running without a lease."""
    rows = db.rows(Run).filter(
        pk=run.pk, status=RunStatus.RUNNING, lease_token__isnull=True
    )
    return bool(
        rows.update(
            status=RunStatus.QUEUED, backlog=F("requeue_to"), due_at=clock.now()
        )
    )


def clear_lease(run: Run) -> bool:
    """Clear the lease of a run that is not being executed."""
    rows = db.rows(Run).filter(pk=run.pk, lease_token=run.lease_token)
    return bool(
        rows.exclude(status__in=STATUSES_WITH_LEASE).update(
            lease_token=None, lease_until=None
        )
    )


def delete_stale_wait(wait: Wait) -> bool:
    """Delete a wait whose run has ended or no longer exists."""
    live = db.rows(Run).filter(pk=wait.run_id)
    if live.exclude(status__in=sorted(TERMINAL)).exists():
        return False
    row = db.rows(Wait).filter(pk=wait.pk)
    return bool(row._raw_delete(db.alias()))


def delete_ended_wait(wait: Wait) -> bool:
    """Delete a wait whose step has ended."""
    with db.atomic():
        waits.lock_runs([wait.run_id])
        ended = db.rows(Step).filter(
            pk=ids.step_pk(wait.run_id, wait.step), status__in=sorted(STEP_ENDED)
        )
        if not ended.exists():
            return False
        row = db.rows(Wait).filter(pk=wait.pk)
        return bool(row._raw_delete(db.alias()))


def cancel_step(step: Step) -> bool:
    """Cancel an open step of an ended run."""
    rows = db.rows(Step).filter(pk=step.pk, run__status__in=sorted(TERMINAL))
    return bool(
        rows.exclude(status__in=sorted(STEP_ENDED)).update(
            status=StepStatus.CANCELLED, due_at=None, ended_at=clock.now()
        )
    )


def delete_orphan(row: Model) -> bool:
    """Delete a row whose run no longer exists."""
    run_id = row.run_id  # type: ignore[attr-defined]  # a step, an attempt, a subject
    if db.rows(Run).filter(pk=run_id).exists():
        return False
    rows: Any = type(row)._base_manager.using(db.alias()).filter(pk=row.pk)
    return bool(rows._raw_delete(db.alias()))


def resolve_child_wait(wait: Wait) -> bool:
    """End the wait for a run that has ended; return whether this call did."""
    return resolve_child(wait) is not None


def resolve_child(wait: Wait) -> Run | None:
    """End the wait for a run; return the woken run, or None if it is still live."""
    rows = db.rows(Run).filter(pk=_uuid(wait.name))
    child = rows.defer("data", "output", "event_meta").first()
    if child is None:
        message = f"Run {wait.name} no longer exists."
        error = {"type": "RunNotFound", "message": message, "raise": "InvokeFailed"}
        return waits.resolve(wait, WaitOutcome(StepStatus.FAILED, error=error))
    outcome = runs.outcome_of(child)
    return None if outcome is None else waits.resolve(wait, outcome)


def register_waits_again(run: Run) -> bool:
    """Register the waits of a waiting run without waits, as its open steps describe.

    Timeouts and conditions of events are lost, because only the row of the wait has
    them. Such steps are deleted, and the function is called again to register the wait.
    """
    with db.atomic():
        locked = waits.lock_runs([run.pk])
        rows = db.rows(Wait).filter(run_id=run.pk)
        waiting = locked and locked[0].status == RunStatus.WAITING
        if not waiting or rows.exclude(kind__in=ENDING).exists():
            return False
        steps = db.rows(Step).filter(run_id=run.pk)
        found = steps.exclude(status__in=sorted(STEP_ENDED))
        opened = list(found.defer("input", "output", "logs"))
        known = [(step, wait) for step in opened if (wait := _wait_of(step))]
        for step, wait in known:
            waits.register(run.pk, step.key, [wait])
        lost = [step.pk for step in opened if _only_in_its_wait(step)]
        steps.filter(pk__in=lost)._raw_delete(db.alias())
        if lost or not known:
            waits.wake([run.pk])
    return True


def _wait_of(step: Step) -> NewWait | None:
    """Return the wait of a step if the step's record describes the wait fully."""
    due = step.due_at or clock.now()
    if step.status == StepStatus.SLEEPING:
        return NewWait(kind=WaitKind.SLEEP, due_at=due)
    if step.status == StepStatus.SCHEDULED:
        return NewWait(kind=WaitKind.RETRY, due_at=due)
    if step.status == StepStatus.INVOKING:
        child = (step.detail or {}).get("child", "")
        # The wait is due at once, in case the child has ended already.
        return NewWait(kind=WaitKind.CHILD, name=str(child), due_at=due)
    if step.kind == "wait_for_condition":
        return NewWait(kind=WaitKind.POLL, due_at=due)
    if step.kind == "wait_for_callback":
        return NewWait(kind=WaitKind.CALLBACK)
    if step.kind == "approve":
        detail = step.detail or {}
        name = str(detail.get("permission", ""))
        return NewWait(kind=WaitKind.APPROVAL, name=name, condition=detail)
    return None


def _only_in_its_wait(step: Step) -> bool:
    return step.status == StepStatus.WAITING and _wait_of(step) is None


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        return uuid.UUID(int=0)
