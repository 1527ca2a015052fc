"""The waits of suspended steps: register, find and end them, and wake their runs.

Every wake-up makes the same change under the run's lock: it deletes the wait's row,
ends the step and makes the run eligible. The transaction that deletes the row wins.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, F, Value, When

from durable_jobs import clock, ids
from durable_jobs.failpoints import failpoint
from durable_jobs.models import Run, Step, Wait, WaitKind
from durable_jobs.signals import announce, run_changed
from durable_jobs.statuses import LIVE, RunStatus, StepStatus
from durable_jobs.store import db, steps
from durable_jobs.store.postgres import wake as wake_statement


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWait:
    """A wait to register, with the fields of ``Wait``."""

    kind: WaitKind
    name: str = ""
    match: str = ""
    branch: str = ""
    condition: dict[str, Any] | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """How a wait ends. With the status None, the step stays open."""

    status: StepStatus | None = None
    output: Any = None
    error: dict[str, Any] | None = None
    detail: dict[str, Any] | None = None


def register(run_id: uuid.UUID, step: str, waits: Sequence[NewWait]) -> None:
    """Write the waits of a step, in a transaction that has locked the run."""
    now = clock.now()
    db.rows(Wait).bulk_create(
        Wait(
            run_id=run_id,
            step=step,
            kind=wait.kind,
            name=wait.name,
            match=wait.match,
            branch=wait.branch,
            condition=wait.condition,
            due_at=wait.due_at,
            created_at=now,
        )
        for wait in waits
    )


def drop(run_id: uuid.UUID, step: str | None = None) -> None:
    """Delete the waits of a step, or of the run, which the caller has locked."""
    rows = db.rows(Wait).filter(run_id=run_id)
    if step is not None:
        rows = rows.filter(step=step)
    rows._raw_delete(db.alias())


def lock_runs(run_ids: Iterable[uuid.UUID], *, skip_locked: bool = False) -> list[Run]:
    """Lock live runs in the order of their ids, inside the caller's transaction.

    Load only the fields that a wake-up needs.
    """
    runs = (
        db.rows(Run)
        .filter(pk__in=list(run_ids), status__in=sorted(LIVE))
        .order_by("pk")
        .only("pk", "status", "function", "queue")
    )
    if db.lockable():
        runs = runs.select_for_update(no_key=True, skip_locked=skip_locked)
    return list(runs)


def resolve(
    wait: Wait, outcome: WaitOutcome, *, happened_at: datetime | None = None
) -> Run | None:
    """End a wait with ``outcome`` and wake its run; return None if it ended before.

    ``happened_at`` is the time of the event that ends the wait. A timeout of the same
    step that was due before that time wins, even if no tick has ended the wait yet.
    """
    failpoint("wake.begin", wait.kind)
    if db.is_postgres():
        run = _resolve_in_one_statement(wait, outcome, happened_at)
    else:
        run = _resolve(wait, outcome, happened_at)
    if run is not None:
        failpoint("wake.committed", wait.kind)
    return run


def _resolve(
    wait: Wait, outcome: WaitOutcome, happened_at: datetime | None
) -> Run | None:
    with db.atomic():
        locked = lock_runs([wait.run_id])
        late = happened_at is not None and timed_out([wait], happened_at)
        if not locked or late or not _delete(wait):
            return None
        failpoint("wake.taken", wait.kind)
        finish_step(wait, outcome)
        wake([wait.run_id])
        announce_woken(locked[0])
        failpoint("wake.written", wait.kind)
    return locked[0]


def timed_out(found: Sequence[Wait], moment: datetime) -> set[tuple[uuid.UUID, str]]:
    """Return ``(run_id, key)`` of the steps whose timeout was due before ``moment``."""
    late = db.rows(Wait).filter(
        kind=WaitKind.TIMEOUT, due_at__lt=moment, run_id__in={w.run_id for w in found}
    )
    steps_of = {(wait.run_id, wait.step) for wait in found}
    return steps_of & set(late.values_list("run_id", "step"))


def _resolve_in_one_statement(
    wait: Wait, outcome: WaitOutcome, happened_at: datetime | None
) -> Run | None:
    ref = wake_statement.WaitRef(wait.pk, wait.run_id, wait.step)
    if outcome.status is None:
        row = wake_statement.end_wait(ref, happened_at, clock.now())
    else:
        row = wake_statement.resolve(
            ref,
            happened_at,
            outcome.status.value,
            # Encodes the output, unless it is encoded already.
            Step._meta.get_field("output").get_prep_value(outcome.output),
            outcome.error,
            outcome.detail,
            clock.now(),
        )
    if row is None:
        return None
    run = Run(id=row.id, function=row.function, queue=row.queue, status=row.status)
    if row.ended:
        steps.announce_steps([ids.step_pk(run.pk, row.ended)])
    announce_woken(run)
    return run


def finish_step(wait: Wait, outcome: WaitOutcome) -> None:
    """End the step of an ended wait, and delete the other waits of the step."""
    if outcome.status is None:
        return
    drop(wait.run_id, wait.step)
    steps.end(
        wait.run_id,
        wait.step,
        status=outcome.status,
        now=clock.now(),
        output=outcome.output,
        error=outcome.error,
        detail=outcome.detail,
    )


def announce_woken(run: Run) -> None:
    """Send ``run_changed`` if the run was waiting and is queued now."""
    if run.status == RunStatus.WAITING:
        announce(
            run_changed,
            run_id=run.pk,
            function=run.function,
            status=RunStatus.QUEUED,
            reason="",
        )


def _delete(wait: Wait) -> bool:
    row = db.rows(Wait).filter(pk=wait.pk)
    return bool(row._raw_delete(db.alias()))


def wake(run_ids: Sequence[uuid.UUID]) -> None:
    """Make locked runs eligible: at once, or when their current attempt ends."""
    waiting = When(status=RunStatus.WAITING, then=Value(RunStatus.QUEUED.value))
    db.rows(Run).filter(pk__in=run_ids).update(
        due_at=Case(
            When(status=RunStatus.WAITING, then=Value(clock.now())),
            default=F("due_at"),
        ),
        backlog=Case(
            When(status=RunStatus.WAITING, then=F("requeue_to")), default=F("backlog")
        ),
        status=Case(waiting, default=F("status")),
        wake_requested=True,
    )


def mark_checked(wait: Wait) -> None:
    """Record that no event from before a wait was committed can end it."""
    db.rows(Wait).filter(pk=wait.pk).update(due_at=None)


#: Kinds of waits whose end only wakes the run.
WAKING = frozenset({WaitKind.SLEEP, WaitKind.RETRY, WaitKind.POLL})


def expire(limit: int, others: Iterable[WaitKind]) -> tuple[list[Run], list[Wait]]:
    """End up to ``limit`` due sleeps and retries in one transaction.

    Return the run of each, and the due waits of the kinds in ``others``, which are not
    ended and count towards ``limit``. Runs that are locked are left for the next sweep.
    """
    if db.is_postgres():
        return _expire_in_one_statement(limit, sorted(others))
    found = due(limit, others)
    runs = end_timers([wait for wait in found if wait.kind in WAKING])
    return runs, [wait for wait in found if wait.kind not in WAKING]


def due(limit: int, others: Iterable[WaitKind]) -> list[Wait]:
    """Return up to ``limit`` due waits of the kinds in ``WAKING`` and ``others``."""
    rows = db.rows(Wait).filter(
        due_at__isnull=False,
        due_at__lte=clock.now(),
        kind__in=sorted(WAKING | set(others)),
    )
    return list(rows.order_by("due_at")[:limit])


def postpone(wait: Wait, due_at: datetime) -> None:
    """Set a later due time."""
    db.rows(Wait).filter(pk=wait.pk).update(due_at=due_at)


def _expire_in_one_statement(
    limit: int, others: Sequence[WaitKind]
) -> tuple[list[Run], list[Wait]]:
    now = clock.now()
    rows, left = wake_statement.expire(sorted(WAKING), others, limit, now)
    steps.announce_steps([ids.step_pk(row.id, row.ended) for row in rows if row.ended])
    runs = {
        row.id: Run(
            id=row.id, function=row.function, queue=row.queue, status=row.status
        )
        for row in rows
    }
    for run in runs.values():
        announce_woken(run)
    found = db.rows(Wait).filter(pk__in=left).order_by("due_at")
    return [runs[row.id] for row in rows], list(found) if left else []


def end_timers(waits: Sequence[Wait]) -> list[Run]:
    """End due sleeps and retries in one transaction; return the run of each."""
    if not waits:
        return []
    with db.atomic():
        runs = lock_runs({wait.run_id for wait in waits}, skip_locked=db.lockable())
        locked = {run.pk for run in runs}
        rows = db.rows(Wait).filter(
            pk__in=[wait.pk for wait in waits if wait.run_id in locked]
        )
        taken = list(rows)
        rows._raw_delete(db.alias())
        slept = [wait for wait in taken if wait.kind == WaitKind.SLEEP]
        _end_sleeps(slept)
        woken = {wait.run_id for wait in taken}
        wake(sorted(woken))
        for run in runs:
            if run.pk in woken:
                announce_woken(run)
        failpoint("timers.expired")
    by_id = {run.pk: run for run in runs}
    return [by_id[wait.run_id] for wait in taken]


def _end_sleeps(waits: Sequence[Wait]) -> None:
    keys = [ids.step_pk(wait.run_id, wait.step) for wait in waits]
    if keys:
        db.rows(Step).filter(pk__in=keys, status=StepStatus.SLEEPING).update(
            status=StepStatus.COMPLETED,
            due_at=None,
            ended_at=clock.now(),
        )
        steps.announce_steps(keys)


def find(kind: WaitKind, name: str, matches: Iterable[str] | None = None) -> list[Wait]:
    """Return the waits of a kind for a name, oldest first."""
    rows = db.rows(Wait).filter(kind=kind, name=name)
    if matches is not None:
        rows = rows.filter(match__in=list(matches))
    return list(rows.order_by("pk"))


def possible_waits(
    name: str,
    matches: Iterable[str] | None,
    after: int,
    until: int | None,
    limit: int,
) -> list[Wait]:
    """Return up to ``limit`` waits that an event of a name may end, oldest first.

    ``after`` and ``until`` bound the ids of the waits.
    """
    rows = db.rows(Wait).filter(kind__in=[WaitKind.CANCEL, WaitKind.EVENT], name=name)
    if matches is not None:
        rows = rows.filter(match__in=list(matches))
    # An index cannot serve the sum. With the plain key, the planner may scan the waits
    # of all names in key order until it has found enough of this name.
    rows = rows.alias(at=F("pk") + 0)
    if after:
        rows = rows.filter(at__gt=after)
    if until is not None:
        rows = rows.filter(at__lte=until)
    return list(rows.order_by("at")[:limit])


def existing(keys: Iterable[int]) -> list[Wait]:
    """Return those of the waits that still exist, oldest first."""
    rows = db.rows(Wait).filter(pk__in=list(keys))
    return list(rows.order_by("pk"))


def latest_id() -> int:
    """Return the id of the latest wait, or 0 without waits."""
    rows = db.rows(Wait).order_by("-pk")
    return rows.values_list("pk", flat=True).first() or 0


def exists(kinds: Iterable[WaitKind], name: str) -> bool:
    """Return whether a wait of one of the kinds has this name."""
    rows = db.rows(Wait).filter(kind__in=list(kinds), name=name)
    return rows.exists()


def get(run_id: uuid.UUID, step: str, kind: WaitKind) -> Wait | None:
    """Return a step's wait of a kind, or None."""
    rows = db.rows(Wait).filter(run_id=run_id, step=step, kind=kind)
    return rows.first()
