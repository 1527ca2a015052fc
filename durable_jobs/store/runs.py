"""The life of runs: insert, suspend and end them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import F, QuerySet, TextField
from django.db.models.functions import Cast

from durable_jobs import clock
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Run, Step, Wait, WaitKind
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import LIVE, RunStatus, StepStatus, sources
from durable_jobs.store import awaited_runs, bulk_insert, db, limits, steps, waits
from durable_jobs.store.leases import Lease, LeaseLost
from durable_jobs.store.postgres import finish as finish_statement
from durable_jobs.store.postgres import suspend as suspend_statement
from durable_jobs.store.steps import StepRecord
from durable_jobs.store.waits import NewWait, WaitOutcome

#: Kinds of waits that only the clock ends.
TIMED = frozenset({WaitKind.SLEEP, WaitKind.RETRY, WaitKind.POLL, WaitKind.TIMEOUT})

INVOKE = "invoke"
START = "start"
HANDLER = "handler"
RERUN = "rerun"
BATCH = "batch"
#: Relations of a run that replaces its parent.
AGAIN = (RERUN, BATCH)


@dataclass(slots=True)
class SuspendedStep:
    """A step that waits: its record, its waits, and what is written with them.

    ``replaces_waits``: the step has waited before, and its old waits are deleted.
    ``effect`` is called in the same transaction.
    """

    record: StepRecord
    waits: list[NewWait] = field(default_factory=list)
    replaces_waits: bool = False
    effect: Callable[[], object] | None = None

    @property
    def has_untimed_wait(self) -> bool:
        """Return whether something besides the clock may end a wait.

        Then the waits must be committed soon, so that other processes see them.
        """
        return any(wait.kind not in TIMED for wait in self.waits)


def insert(runs: Sequence[Run]) -> None:
    """Insert new runs in one statement."""
    bulk_insert.insert(Run, runs)


def suspend(
    lease: Lease,
    *,
    records: Sequence[StepRecord] = (),
    suspended: Sequence[SuspendedStep] = (),
    queue: str | None = None,
    due_at: datetime | None = None,
    failure_count: int | None = None,
    release_slots: bool = False,
    database_errors: int = 0,
) -> str:
    """Release the lease, and write steps and waits, in one transaction.

    With ``due_at``, the run is eligible at that time; without it, when a wait ends.
    With ``release_slots``, release the slots of its steps. ``database_errors`` is the
    number of attempts in a row that a database error has ended. Return the new status.
    Raise ``LeaseLost`` if the lease is not held.
    """
    first = suspended[0].record.name if suspended else ""
    failpoint("suspend.begin", first)
    changes: dict[str, Any] = {
        "queue": queue,
        "due_at": due_at,
        "failure_count": failure_count,
    }
    if db.is_postgres() and not any(
        item.effect or item.replaces_waits for item in suspended
    ):
        changes |= {"release_slots": release_slots, "database_errors": database_errors}
        return _suspend_in_one_statement(lease, records, suspended, changes)
    with db.atomic():
        fenced = steps.fence(lease)
        write_suspended(lease.run_id, records, suspended)
        row = db.rows(Run).filter(pk=lease.run_id, lease_token=lease.token)
        changes = {"lease_token": None, "lease_until": None}
        changes["database_errors"] = database_errors
        if queue is not None:
            changes["queue"] = queue
        if failure_count is not None:
            changes["attempt"] = failure_count
        status = RunStatus(fenced)
        if status == RunStatus.RUNNING:
            woken = row.values_list("wake_requested", flat=True).get()
            if woken and due_at is None:
                due_at = clock.now()
            status = RunStatus.QUEUED if due_at is not None else RunStatus.WAITING
            if due_at is not None:
                changes["due_at"] = due_at
        if status == RunStatus.QUEUED:
            changes["backlog"] = F("requeue_to")
        if not row.update(
            status=status, crash_count=0, wake_requested=False, **changes
        ):
            raise LeaseLost
        if release_slots:
            limits.release_slots([lease.run_id], steps_only=True)
        failpoint("suspend.written", first)
    failpoint("suspend.committed", first)
    return status


def _suspend_in_one_statement(
    lease: Lease,
    records: Sequence[StepRecord],
    suspended: Sequence[SuspendedStep],
    changes: dict[str, Any],
) -> str:
    written = [*records, *(item.record for item in suspended)]
    rows = steps.rows_of(lease.run_id, written)
    new = [(item.record.key, wait) for item in suspended for wait in item.waits]
    status = suspend_statement.suspend(lease, rows, new, now=clock.now(), **changes)
    if status is None:
        raise LeaseLost
    failpoint("suspend.committed", suspended[0].record.name if suspended else "")
    return status


def write_suspended(
    run_id: uuid.UUID,
    records: Sequence[StepRecord],
    suspended: Sequence[SuspendedStep],
) -> None:
    """Write steps with their waits, in a transaction that has locked the run."""
    steps.write(run_id, [*records, *(item.record for item in suspended)])
    for item in suspended:
        if item.effect is not None:
            item.effect()
        if item.replaces_waits:
            waits.drop(run_id, item.record.key)
        waits.register(run_id, item.record.key, item.waits)


def suspend_step(
    lease: Lease, records: Sequence[StepRecord], item: SuspendedStep
) -> str:
    """Commit one waiting step while its run continues; return the run's status."""
    name = item.record.name
    failpoint("suspend_step.begin", name)
    with db.atomic():
        status = steps.fence(lease)
        write_suspended(lease.run_id, records, [item])
        failpoint("suspend_step.written", name)
    failpoint("suspend_step.committed", name)
    return status


@dataclass(frozen=True, slots=True)
class End:
    """How a run ends. ``output`` is JSON text."""

    status: RunStatus
    output: str | None = None
    error: dict[str, Any] | None = None
    reason: str = ""
    #: For the log line only, and not stored: the exception that ended the run, and the
    #: id and the key of the step that raised it.
    exc_info: tuple[Any, ...] | None = field(default=None, compare=False, repr=False)
    step: tuple[str, str] = field(default=("", ""), compare=False, repr=False)


def finish_simple(lease: Lease, end: End, *, release_slots: bool = False) -> bool:
    """End a run without waits and children; return whether this call ended it.

    Return False if the lease is lost, or if other runs wait for its end. With
    ``release_slots``, release the slots of the run.
    """
    if db.is_postgres():
        return finish_statement.finish_simple(
            lease, _end_values(end), release_slots=release_slots
        )
    rows = db.rows(Run).filter(
        pk=lease.run_id,
        lease_token=lease.token,
        status=RunStatus.RUNNING,
        awaited=False,
    )
    if not release_slots:
        return bool(rows.update(**_end_fields(end)))
    with db.atomic():
        done = bool(rows.update(**_end_fields(end)))
        if done:
            limits.release_slots([lease.run_id])
    return done


def finish_with_waits(lease: Lease, end: End, *, release_slots: bool = False) -> bool:
    """End a run with its waits and open steps in one statement, if that is enough.

    Return False if the run has live children, if other runs wait for its end, if the
    lease is lost, or if the database is not PostgreSQL.
    """
    if not db.is_postgres():
        return False
    cancelled = finish_statement.finish_with_waits(
        lease, _end_values(end), release_slots=release_slots
    )
    steps.announce_steps(cancelled or [])
    return cancelled is not None


def _end_values(end: End) -> finish_statement.EndValues:
    error = None if end.error is None else json.dumps(end.error)
    return finish_statement.EndValues(
        end.status.value, end.output, error, end.reason, clock.now()
    )


#: Returns the handler runs to start when a run ends.
MakeHandlers = Callable[[Run, End], Sequence[Run]]


def finish(
    run: Run, end: End, lease: Lease | None, make_handlers: MakeHandlers
) -> bool:
    """End a run and everything that depends on it; return whether this call ended it.

    In one transaction: end the run, delete its waits, cancel its open steps and the
    runs that it invoked, resume its parent, and start its handlers. With a lease, only
    the holder of the lease may end the run. Without, any live run is ended.
    """
    with db.atomic():
        if run.parent_id and run.parent_relation == INVOKE:
            waits.lock_runs([run.parent_id])
        rows = db.rows(Run).filter(pk=run.pk, status__in=sources(end.status))
        if lease is not None:
            rows = rows.filter(lease_token=lease.token)
        if not _end(rows, run, end):
            return False
        failpoint("finish.ended", run.function)
        _end_dependents(run, end, make_handlers)
        insert(make_handlers(run, end))
        resolve_parent_wait(run, end)
        failpoint("finish.written", run.function)
    return True


def _end(rows: QuerySet[Run], run: Run, end: End) -> bool:
    """End a run and make the waits for it due; return whether this call ended it.

    A run may become awaited at any time, so the two cases are two updates.
    """
    if rows.filter(awaited=False).update(**_end_fields(end)):
        return True
    if not rows.filter(awaited=True).update(**_end_fields(end)):
        return False
    awaited_runs.announce(run.pk)
    run.awaited = True
    return True


def _end_fields(end: End) -> dict[str, Any]:
    return {
        "status": end.status,
        "output": None if end.output is None else EncodedJSON(end.output),
        "error": end.error,
        "reason": end.reason,
        "lease_token": None,
        "lease_until": None,
        "crash_count": 0,
        "ended_at": clock.now(),
    }


def _end_dependents(run: Run, end: End, make_handlers: MakeHandlers) -> None:
    """Release an ended run's slots, end its waits and steps, cancel its children."""
    run_id = run.pk
    if run.flow is not None:
        limits.release_slots([run_id])
    waits.drop(run_id)
    steps.cancel(db.rows(Step).filter(run_id=run_id))
    children = db.rows(Run).filter(
        parent_id=run_id, parent_relation=INVOKE, status__in=sorted(LIVE)
    )
    reason = f"Its parent run is {end.status.value}."
    _cancel_all(children.order_by("pk"), reason, make_handlers)


def _cancel_all(
    children: Iterable[Run], reason: str, make_handlers: MakeHandlers
) -> None:
    """Cancel runs and all runs that they invoked, without resolving their parents."""
    for child in children:
        end = End(RunStatus.CANCELLED, reason=reason)
        rows = db.rows(Run).filter(pk=child.pk, status__in=sources(RunStatus.CANCELLED))
        if _end(rows, child, end):
            _end_dependents(child, end, make_handlers)
            insert(make_handlers(child, end))


def resolve_parent_wait(run: Run, end: End) -> None:
    """End the wait of the step that invoked a run, if the step still waits for it."""
    if not run.parent_id or run.parent_relation != INVOKE:
        return
    wait = waits.get(run.parent_id, run.parent_step, WaitKind.CHILD)
    if wait is None or wait.name != str(run.pk):
        return
    if end.status == RunStatus.COMPLETED:
        output = EncodedJSON(end.output or "null")
        outcome = WaitOutcome(
            StepStatus.COMPLETED, output=output, detail=_child_detail(run)
        )
    else:
        outcome = WaitOutcome(
            StepStatus.FAILED, error=_child_error(run, end), detail=_child_detail(run)
        )
    waits.resolve(wait, outcome, happened_at=run.ended_at or clock.now())


def outcome_of(run: Run) -> WaitOutcome | None:
    """Return the outcome for a step that waits for a run, or None if the run is live.

    The output is copied as stored JSON, because a row that it refers to may be deleted.
    """
    if run.is_live:
        return None
    if run.status != RunStatus.COMPLETED:
        end = End(RunStatus(run.status), error=run.error, reason=run.reason)
        error = _child_error(run, end)
        return WaitOutcome(StepStatus.FAILED, error=error, detail=_child_detail(run))
    rows = db.rows(Run).filter(pk=run.pk)
    text = rows.values_list(Cast("output", TextField()), flat=True).first()
    output = EncodedJSON(text or "null")
    return WaitOutcome(StepStatus.COMPLETED, output=output, detail=_child_detail(run))


def _child_detail(run: Run) -> dict[str, str]:
    return {"child": str(run.pk)}


def _child_error(run: Run, end: End) -> dict[str, Any]:
    cause = end.error or {}
    what = cause.get("message") or end.reason or "no reason was given"
    return {
        "type": cause.get("type", "RunCancelled"),
        "message": f"Run {run.pk} of {run.function} {end.status}: {what}",
        "raise": "InvokeFailed",
    }


def drop_steps(run: Run, keys: Sequence[str], make_handlers: MakeHandlers) -> None:
    """Cancel open steps, their waits and the runs that they invoked.

    The caller's transaction has locked the run.
    """
    if not keys:
        return
    rows = db.rows(Step).filter(run_id=run.pk, key__in=list(keys))
    steps.cancel(rows)
    db.rows(Wait).filter(run_id=run.pk, step__in=list(keys))._raw_delete(db.alias())
    children = db.rows(Run).filter(
        parent_id=run.pk,
        parent_step__in=list(keys),
        parent_relation=INVOKE,
        status__in=sorted(LIVE),
    )
    reason = "The branch that invoked it was cancelled."
    _cancel_all(children.order_by("pk"), reason, make_handlers)
