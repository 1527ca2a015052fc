"""What suspended steps wait for, and waking their runs.

Every wake-up is the same change, made under the run's lock: the wait's row goes, the
step gets its end, and the run becomes eligible. Whoever finds the row there has won.
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
from durable_jobs.store.postgres import suspend


@dataclass(frozen=True, slots=True, kw_only=True)
class NewWait:
    """A wait to be registered; the fields are those of ``Wait``."""

    kind: WaitKind
    name: str = ""
    match: str = ""
    branch: str = ""
    condition: dict[str, Any] | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WaitOutcome:
    """What a wait ends with. ``status`` None: the step goes on being open."""

    status: StepStatus | None = None
    output: Any = None
    error: dict[str, Any] | None = None
    detail: dict[str, Any] | None = None


def register(run_id: uuid.UUID, step: str, waits: Sequence[NewWait]) -> None:
    """Write a step's waits, inside a transaction that holds the run's lock."""
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
    """Forget a step's waits, or all of a run's; its lock is held."""
    rows = db.rows(Wait).filter(run_id=run_id)
    if step is not None:
        rows = rows.filter(step=step)
    rows._raw_delete(db.alias())


def lock_runs(
    run_ids: Iterable[uuid.UUID], *, skip_locked: bool = False, whole: bool = False
) -> list[Run]:
    """Lock live runs in the order of their ids, inside the caller's transaction.

    They come with what a wake-up needs; ``whole``, with all that they have.
    """
    runs = (
        db.rows(Run)
        .filter(pk__in=list(run_ids), status__in=sorted(LIVE))
        .order_by("pk")
    )
    if not whole:
        runs = runs.only("pk", "status", "function", "queue")
    if db.lockable():
        runs = runs.select_for_update(no_key=True, skip_locked=skip_locked)
    return list(runs)


def resolve(
    wait: Wait, outcome: WaitOutcome, *, happened_at: datetime | None = None
) -> Run | None:
    """End a wait with ``outcome`` and wake its run; None when another was first.

    ``happened_at``: when what ends the wait happened. A timeout of the same step that
    was due before that wins, even if no tick has ended it yet.
    """
    failpoint("wake.begin", wait.kind)
    if db.is_postgres():
        run = _resolved_at_once(wait, outcome, happened_at)
    else:
        run = _resolved(wait, outcome, happened_at)
    if run is not None:
        failpoint("wake.committed", wait.kind)
    return run


def _resolved(
    wait: Wait, outcome: WaitOutcome, happened_at: datetime | None
) -> Run | None:
    with db.atomic():
        locked = lock_runs([wait.run_id])
        late = happened_at is not None and timed_out([wait], happened_at)
        if not locked or late or not _take(wait):
            return None
        failpoint("wake.taken", wait.kind)
        finish_step(wait, outcome)
        wake([wait.run_id])
        announce_woken(locked[0])
        failpoint("wake.written", wait.kind)
    return locked[0]


def timed_out(found: Sequence[Wait], moment: datetime) -> set[tuple[uuid.UUID, str]]:
    """Return the steps of waits, by run and key, whose timeout was due before."""
    late = db.rows(Wait).filter(
        kind=WaitKind.TIMEOUT, due_at__lt=moment, run_id__in={w.run_id for w in found}
    )
    steps_of = {(wait.run_id, wait.step) for wait in found}
    return steps_of & set(late.values_list("run_id", "step"))


def _resolved_at_once(
    wait: Wait, outcome: WaitOutcome, happened_at: datetime | None
) -> Run | None:
    """Do the same in one statement."""
    place = wait.pk, wait.run_id, wait.step
    if outcome.status is None:
        row = suspend.take(place, happened_at, clock.now())
    else:
        row = suspend.resolve(
            place,
            happened_at,
            outcome.status.value,
            # What went through the codec passes.
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
    """Give the step behind a taken wait its end; its other waits go with it."""
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
    """Announce that a run which waited is queued again."""
    if run.status == RunStatus.WAITING:
        announce(
            run_changed,
            run_id=run.pk,
            function=run.function,
            status=RunStatus.QUEUED,
            reason="",
        )


def _take(wait: Wait) -> bool:
    row = db.rows(Wait).filter(pk=wait.pk)
    return bool(row._raw_delete(db.alias()))


def wake(run_ids: Sequence[uuid.UUID]) -> None:
    """Make locked runs eligible: now, or as soon as the attempt that runs them ends."""
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


def looked(wait: Wait) -> None:
    """Note that what came before a wait was looked through, and that it was not it."""
    db.rows(Wait).filter(pk=wait.pk).update(due_at=None)


#: Waits whose end is nothing but waking their run.
WAKING = frozenset({WaitKind.SLEEP, WaitKind.RETRY, WaitKind.POLL})


def expire(limit: int, others: Iterable[WaitKind]) -> tuple[list[Run], list[Wait]]:
    """End sleeps and retries that are due; return the run of each.

    Up to ``limit`` waits, in one transaction. Runs that others have locked are left for
    the next sweep. Waits of the kinds in ``others`` that are due as well are returned
    as they are.
    """
    if db.is_postgres():
        return _expired_at_once(limit, sorted(others))
    found = due(limit, others)
    runs = expire_these([wait for wait in found if wait.kind in WAKING])
    return runs, [wait for wait in found if wait.kind not in WAKING]


def due(limit: int, others: Iterable[WaitKind]) -> list[Wait]:
    """Return up to ``limit`` waits that are due: those that wake, and ``others``."""
    rows = db.rows(Wait).filter(
        due_at__isnull=False,
        due_at__lte=clock.now(),
        kind__in=sorted(WAKING | set(others)),
    )
    return list(rows.order_by("due_at")[:limit])


def put_off(wait: Wait, due_at: datetime) -> None:
    """Let a wait be due later."""
    db.rows(Wait).filter(pk=wait.pk).update(due_at=due_at)


def _expired_at_once(
    limit: int, others: Sequence[WaitKind]
) -> tuple[list[Run], list[Wait]]:
    now = clock.now()
    rows, left = suspend.expire(sorted(WAKING), others, limit, now)
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


def expire_these(waits: Sequence[Wait]) -> list[Run]:
    """End sleeps and retries that are due, in one transaction; return their runs."""
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
    """Return the waits of a kind for a name, the oldest first."""
    rows = db.rows(Wait).filter(kind=kind, name=name)
    if matches is not None:
        rows = rows.filter(match__in=list(matches))
    return list(rows.order_by("pk"))


def page(
    name: str,
    matches: Iterable[str] | None,
    after: int,
    until: int | None,
    limit: int,
) -> list[Wait]:
    """Return the next waits that an event of a name may end, the oldest first."""
    rows = db.rows(Wait).filter(kind__in=[WaitKind.CANCEL, WaitKind.EVENT], name=name)
    if matches is not None:
        rows = rows.filter(match__in=list(matches))
    # A sum is in no index: with the bare key, a plan may walk through the waits of all
    # names in their order until it has found enough of this one.
    rows = rows.alias(at=F("pk") + 0)
    if after:
        rows = rows.filter(at__gt=after)
    if until is not None:
        rows = rows.filter(at__lte=until)
    return list(rows.order_by("at")[:limit])


def of_ids(keys: Iterable[int]) -> list[Wait]:
    """Return waits that are still there, the oldest first."""
    rows = db.rows(Wait).filter(pk__in=list(keys))
    return list(rows.order_by("pk"))


def latest() -> int:
    """Return the id of the latest wait, 0 when there is none."""
    rows = db.rows(Wait).order_by("-pk")
    return rows.values_list("pk", flat=True).first() or 0


def exists(kinds: Iterable[WaitKind], name: str) -> bool:
    """Tell whether anything waits for a name."""
    rows = db.rows(Wait).filter(kind__in=list(kinds), name=name)
    return rows.exists()


def get(run_id: uuid.UUID, step: str, kind: WaitKind) -> Wait | None:
    """Return a step's wait of a kind, if it is still there."""
    rows = db.rows(Wait).filter(run_id=run_id, step=step, kind=kind)
    return rows.first()
