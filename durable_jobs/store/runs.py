"""The life of runs: created, suspended and ended."""

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
from durable_jobs.models.fields import EncodedJSON
from durable_jobs.statuses import LIVE, RunStatus, StepStatus, sources
from durable_jobs.store import awaited_runs, bulk_insert, db, limits, steps, waits
from durable_jobs.store.leases import LeaseLost
from durable_jobs.store.postgres import statements
from durable_jobs.store.postgres import suspend as suspend_statement
from durable_jobs.store.steps import Lease, StepRecord
from durable_jobs.store.waits import NewWait, WaitOutcome

#: Waits that nothing but the time ends.
TIMED = frozenset({WaitKind.SLEEP, WaitKind.RETRY, WaitKind.POLL, WaitKind.TIMEOUT})

INVOKE = "invoke"
START = "start"
HANDLER = "handler"
RERUN = "rerun"
BATCH = "batch"
#: Relations of a run that takes the place of its parent.
AGAIN = (RERUN, BATCH)


@dataclass(slots=True)
class SuspendedStep:
    """A step that waits: its memo, its waits, and what else is one with them.

    ``known``: it has waited before, and its waits are replaced. ``along`` is called in
    the same transaction.
    """

    memo: StepRecord
    waits: list[NewWait] = field(default_factory=list)
    known: bool = False
    along: Callable[[], object] | None = None

    @property
    def urgent(self) -> bool:
        """Tell whether somebody else may end it: then its waits must soon be seen."""
        return any(wait.kind not in TIMED for wait in self.waits)


def insert(runs: Sequence[Run]) -> None:
    """Write new runs, in one statement."""
    bulk_insert.insert(Run, runs)


def suspend(
    lease: Lease,
    *,
    notes: Sequence[StepRecord] = (),
    parked: Sequence[SuspendedStep] = (),
    queue: str | None = None,
    due_at: datetime | None = None,
    attempt: int | None = None,
    holding: bool = False,
    database_errors: int = 0,
) -> str:
    """Give the lease back, with what the run waits for, in one transaction.

    With ``due_at`` the run is eligible again then; without, when something wakes it.
    ``holding``: it may hold slots for its steps, which are released.
    ``database_errors``: how many attempts in a row have ended by one. Returns its new
    status. Raises ``LeaseLost``.
    """
    run_id, token = lease
    first = parked[0].memo.name if parked else ""
    failpoint("suspend.begin", first)
    changes: dict[str, Any] = {"queue": queue, "due_at": due_at, "attempt": attempt}
    if db.is_postgres() and not any(item.along or item.known for item in parked):
        changes |= {"holding": holding, "database_errors": database_errors}
        return _suspended_at_once(lease, notes, parked, changes)
    with db.atomic():
        fenced = steps.fence(lease)
        suspend_step(run_id, notes, parked)
        row = db.rows(Run).filter(pk=run_id, lease_token=token)
        changes = {"lease_token": None, "lease_until": None}
        changes["database_errors"] = database_errors
        if queue is not None:
            changes["queue"] = queue
        if attempt is not None:
            changes["attempt"] = attempt
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
        if holding:
            limits.release([run_id], resting=True)
        failpoint("suspend.written", first)
    failpoint("suspend.committed", first)
    return status


def _suspended_at_once(
    lease: Lease,
    notes: Sequence[StepRecord],
    parked: Sequence[SuspendedStep],
    changes: dict[str, Any],
) -> str:
    """Suspend in one statement."""
    rows = steps.rows_of(lease[0], [*notes, *(item.memo for item in parked)])
    new = [(item.memo.key, wait) for item in parked for wait in item.waits]
    status = suspend_statement.suspend(lease, rows, new, now=clock.now(), **changes)
    if status is None:
        raise LeaseLost
    failpoint("suspend.committed", parked[0].memo.name if parked else "")
    return status


def suspend_step(
    run_id: uuid.UUID, notes: Sequence[StepRecord], parked: Sequence[SuspendedStep]
) -> None:
    """Write waiting steps with their waits, under the run's lock."""
    steps.write(run_id, [*notes, *(item.memo for item in parked)])
    for item in parked:
        if item.along is not None:
            item.along()
        if item.known:
            waits.drop(run_id, item.memo.key)
        waits.register(run_id, item.memo.key, item.waits)


def park_now(lease: Lease, notes: Sequence[StepRecord], item: SuspendedStep) -> str:
    """Register one waiting step while the run goes on with its other branches."""
    name = item.memo.name
    failpoint("park.begin", name)
    with db.atomic():
        status = steps.fence(lease)
        suspend_step(lease[0], notes, [item])
        failpoint("park.written", name)
    failpoint("park.committed", name)
    return status


@dataclass(frozen=True, slots=True)
class End:
    """How a run ends. ``output`` is JSON text."""

    status: RunStatus
    output: str | None = None
    error: dict[str, Any] | None = None
    reason: str = ""
    #: What its log line says beside the rest, and no row: the exception that ended the
    #: run, and the id and the key of the step that raised it.
    exc_info: tuple[Any, ...] | None = field(default=None, compare=False, repr=False)
    step: tuple[str, str] = field(default=("", ""), compare=False, repr=False)


def finish_plain(lease: Lease, end: End, *, holding: bool = False) -> bool:
    """End a run that nothing hangs on, in one statement.

    False when it is not ours, or when other runs wait for its end. ``holding``: it may
    hold slots, which are released.
    """
    if db.is_postgres():
        return statements.finish(lease, _values(end), holding=holding)
    run_id, token = lease
    rows = db.rows(Run).filter(
        pk=run_id, lease_token=token, status=RunStatus.RUNNING, awaited=False
    )
    if not holding:
        return bool(rows.update(**_ending(end)))
    with db.atomic():
        done = bool(rows.update(**_ending(end)))
        if done:
            limits.release([run_id])
    return done


def finish_alone(lease: Lease, end: End, *, holding: bool = False) -> bool:
    """End a run with its waits and open steps, in one statement, where that is all.

    False where it has live children, is not ours, or the database needs more than one.
    """
    if not db.is_postgres():
        return False
    cancelled = suspend_statement.finish(lease, _values(end), holding=holding)
    steps.announce_steps(cancelled or [])
    return cancelled is not None


def _values(end: End) -> statements.Ending:
    error = None if end.error is None else json.dumps(end.error)
    return statements.Ending(
        end.status.value, end.output, error, end.reason, clock.now()
    )


#: Gives the runs that follow the end of one: its handlers.
Follow = Callable[[Run, End], Sequence[Run]]


def finish(run: Run, lease: Lease | None, end: End, follow: Follow) -> bool:
    """End a run with all that hangs on it; tell whether this call ended it.

    In one transaction: the run's own end, the waits and open steps that it leaves, the
    children that it invoked, the parent that waits for it, and the handlers that
    follow. With a lease, only its holder may; without, anyone may end a live run.
    """
    with db.atomic():
        if run.parent_id and run.parent_relation == INVOKE:
            waits.lock_runs([run.parent_id])
        rows = db.rows(Run).filter(pk=run.pk, status__in=sources(end.status))
        if lease is not None:
            rows = rows.filter(lease_token=lease[1])
        if not _end(rows, run, end):
            return False
        failpoint("finish.ended", run.function)
        _release(run, end, follow)
        insert(follow(run, end))
        tell_parent(run, end)
        failpoint("finish.written", run.function)
    return True


def _end(rows: QuerySet[Run], run: Run, end: End) -> bool:
    """End a run; return whether this call did. The runs that wait for it are told.

    In two statements where they are needed: a run may become awaited at any time.
    """
    if rows.filter(awaited=False).update(**_ending(end)):
        return True
    if not rows.filter(awaited=True).update(**_ending(end)):
        return False
    awaited_runs.announce(run.pk)
    run.awaited = True
    return True


def _ending(end: End) -> dict[str, Any]:
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


def _release(run: Run, end: End, follow: Follow) -> None:
    """Drop what an ended run waited for and held, and cancel those that it invoked."""
    run_id = run.pk
    if run.flow is not None:
        limits.release([run_id])
    waits.drop(run_id)
    steps.cancel(db.rows(Step).filter(run_id=run_id))
    children = db.rows(Run).filter(
        parent_id=run_id, parent_relation=INVOKE, status__in=sorted(LIVE)
    )
    reason = f"Its parent run is {end.status.value}."
    _cancel_all(children.order_by("pk"), reason, follow)


def _cancel_all(children: Iterable[Run], reason: str, follow: Follow) -> None:
    """Cancel runs and, below them, those that they invoked; their parents know."""
    for child in children:
        end = End(RunStatus.CANCELLED, reason=reason)
        rows = db.rows(Run).filter(pk=child.pk, status__in=sources(RunStatus.CANCELLED))
        if _end(rows, child, end):
            _release(child, end, follow)
            insert(follow(child, end))


def tell_parent(run: Run, end: End) -> None:
    """Give an invoked run's end to the step that waits for it, if it still does."""
    if not run.parent_id or run.parent_relation != INVOKE:
        return
    wait = waits.get(run.parent_id, run.parent_step, WaitKind.CHILD)
    if wait is None or wait.name != str(run.pk):
        return
    if end.status == RunStatus.COMPLETED:
        output = EncodedJSON(end.output or "null")
        outcome = WaitOutcome(StepStatus.COMPLETED, output=output, detail=_child(run))
    else:
        outcome = WaitOutcome(
            StepStatus.FAILED, error=_child_error(run, end), detail=_child(run)
        )
    waits.resolve(wait, outcome, happened_at=run.ended_at or clock.now())


def outcome_of(run: Run) -> WaitOutcome | None:
    """Return what an ended run is to a step that waits for it; None while it is live.

    Its output is read as it is stored: what the output refers to may be gone.
    """
    if run.is_live:
        return None
    if run.status != RunStatus.COMPLETED:
        end = End(RunStatus(run.status), error=run.error, reason=run.reason)
        error = _child_error(run, end)
        return WaitOutcome(StepStatus.FAILED, error=error, detail=_child(run))
    rows = db.rows(Run).filter(pk=run.pk)
    text = rows.values_list(Cast("output", TextField()), flat=True).first()
    output = EncodedJSON(text or "null")
    return WaitOutcome(StepStatus.COMPLETED, output=output, detail=_child(run))


def _child(run: Run) -> dict[str, str]:
    return {"child": str(run.pk)}


def _child_error(run: Run, end: End) -> dict[str, Any]:
    cause = end.error or {}
    what = cause.get("message") or end.reason or "no reason was given"
    return {
        "type": cause.get("type", "RunCancelled"),
        "message": f"Run {run.pk} of {run.function} {end.status}: {what}",
        "raise": "InvokeFailed",
    }


def drop_steps(run: Run, keys: Sequence[str], follow: Follow) -> None:
    """Cancel open steps with what they wait for and the runs that they invoked.

    Inside a transaction that holds the run's lock.
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
    _cancel_all(children.order_by("pk"), reason, follow)
