"""The memos of runs: loaded once an attempt, written once a step."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from durable_jobs import clock, ids
from durable_jobs.failpoints import failpoint
from durable_jobs.models import STEP_PAYLOADS, FailedAttempt, Run, Step
from durable_jobs.models.fields import EncodedJSON
from durable_jobs.signals import announce, step_changed
from durable_jobs.statuses import STEP_ENDED, StepStatus
from durable_jobs.store import db
from durable_jobs.store.leases import LeaseLost
from durable_jobs.store.postgres import statements

Lease = tuple[uuid.UUID, uuid.UUID]


@dataclass(slots=True)
class StepRecord:
    """A step as the engine holds it.

    ``input`` and ``output`` are JSON text, as they are stored. ``input`` and ``logs``
    are written and never loaded.
    """

    key: str
    name: str
    kind: str
    status: str
    position: int
    attempt: int = 0
    output: str | None = None
    error: dict[str, Any] | None = None
    detail: dict[str, Any] | None = None
    due_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: The primary key of the step it is below.
    parent: uuid.UUID | None = None
    input: str | None = None
    logs: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Tell whether it has a result, and so never changes again."""
        return self.status in STEP_ENDED

    def but(self, **changes: Any) -> StepRecord:
        """Return a copy with other values."""
        return replace(self, **changes)


def load(run_id: uuid.UUID) -> dict[str, StepRecord]:
    """Return all that a run's replay needs of its steps, by key, in one query."""
    if db.is_postgres():
        return {row[0]: StepRecord(*row) for row in statements.load(run_id)}
    rows = (
        db.rows(Step)
        .filter(run_id=run_id)
        .order_by("position")
        .values_list(
            "key",
            "name",
            "kind",
            "status",
            "position",
            "attempt",
            Cast("output", TextField()),
            "error",
            "detail",
            "due_at",
            "started_at",
            "ended_at",
            "parent_id",
        )
    )
    return {row[0]: StepRecord(*row) for row in rows}


def record(lease: Lease, memos: Sequence[StepRecord]) -> str:
    """Write steps under a lease and return the run's status.

    A step that has ended is never overwritten. Raises ``LeaseLost``.
    """
    run_id, token = lease
    failpoint("record.begin", memos[-1].name)
    if db.is_postgres():
        status = statements.record(run_id, token, rows_of(run_id, memos))
    else:
        with db.atomic():
            status = fence(lease)
            write(run_id, memos)
    if status is None:
        raise LeaseLost
    failpoint("record.committed", memos[-1].name)
    return status


def rows_of(run_id: uuid.UUID, memos: Iterable[StepRecord]) -> list[list[Any]]:
    """Return the values of steps in the order of ``postgres.STEP_COLUMNS``."""
    return [_row(run_id, memo) for memo in _latest(memos)]


def _latest(memos: Iterable[StepRecord]) -> Iterable[StepRecord]:
    """Return the last record of each step: a branch may begin and end in one write."""
    return {memo.key: memo for memo in memos}.values()


def record_with(
    lease: Lease,
    notes: Sequence[StepRecord],
    effect: Callable[[], StepRecord],
    *,
    dropping_waits: bool = False,
) -> tuple[StepRecord, str]:
    """Do something and write the step that it makes, in one transaction.

    The lock comes first: whoever lost the lease does nothing at all.
    """
    with db.atomic():
        status = fence(lease)
        failpoint("record.locked")
        memo = effect()
        write(lease[0], [*notes, memo])
        if dropping_waits:
            from durable_jobs.store import waits

            waits.drop(lease[0], memo.key)
        failpoint("record.written", memo.name)
    failpoint("record.committed", memo.name)
    return memo, status


def fence(lease: Lease) -> str:
    """Lock the run and return its status, inside the caller's transaction.

    Raises ``LeaseLost`` when the lease is not held any more.
    """
    run_id, token = lease
    rows = db.rows(Run).filter(pk=run_id, lease_token=token)
    if db.lockable():
        rows = rows.select_for_update(no_key=True)
    status = rows.values_list("status", flat=True).first()
    if status is None:
        raise LeaseLost
    return status


def write(run_id: uuid.UUID, memos: Iterable[StepRecord]) -> None:
    """Write steps inside the caller's transaction, which holds the run's lock."""
    rows = [_step(run_id, memo) for memo in _latest(memos)]
    if not rows:
        return
    known = set(
        db.rows(Step)
        .filter(pk__in=[row.pk for row in rows])
        .values_list("pk", flat=True)
    )
    db.rows(Step).bulk_create([row for row in rows if row.pk not in known])
    for row in rows:
        if row.pk in known:
            open_step = db.rows(Step).filter(pk=row.pk)
            open_step.exclude(status__in=sorted(STEP_ENDED)).update(
                **{name: getattr(row, name) for name in _CHANGING}
            )


#: All but what the first record of a step says for good, its input among it.
_CHANGING = (
    "status",
    "attempt",
    "output",
    "error",
    "detail",
    "logs",
    "due_at",
    "started_at",
    "ended_at",
)


def end(
    run_id: uuid.UUID,
    key: str,
    *,
    status: StepStatus,
    now: datetime,
    output: Any = None,
    error: dict[str, Any] | None = None,
    detail: dict[str, Any] | None = None,
) -> bool:
    """Give an open step its end, inside a transaction that holds the run's lock."""
    changes: dict[str, Any] = {
        "status": status,
        "output": output,
        "error": error,
        "due_at": None,
        "ended_at": now,
    }
    if detail is not None:
        changes["detail"] = detail
    pk = ids.step_pk(run_id, key)
    step = db.rows(Step).filter(pk=pk)
    done = bool(step.exclude(status__in=sorted(STEP_ENDED)).update(**changes))
    if done:
        announce_steps([pk])
    return done


def cancel(rows: QuerySet[Step]) -> None:
    """Cancel those of some steps that are open; the lock of their run is held."""
    rows = rows.exclude(status__in=sorted(STEP_ENDED))
    keys = list(rows.values_list("pk", flat=True)) if step_changed.receivers else []
    rows.update(status=StepStatus.CANCELLED, due_at=None, ended_at=clock.now())
    announce_steps(keys)


def announce_steps(keys: Sequence[uuid.UUID]) -> None:
    """Announce steps that ended outside of an attempt; free where nobody listens."""
    if not keys or not step_changed.receivers:
        return
    rows = db.rows(Step).filter(pk__in=keys).order_by("position")
    for step in rows.select_related("run").defer(*STEP_PAYLOADS):
        announce(
            step_changed,
            run_id=step.run_id,
            function=step.run.function,
            step=step.name,
            kind=step.kind,
            status=step.status,
            attempt=step.attempt,
        )


def record_attempt(
    run_id: uuid.UUID,
    step: str,
    number: int,
    error: dict[str, Any],
    started_at: datetime | None,
    ended_at: datetime,
    logs: dict[str, Any] | None = None,
) -> None:
    """Keep what went wrong in an attempt that will be followed by another."""
    db.insert(
        FailedAttempt(
            run_id=run_id,
            step=step,
            number=number,
            error=error,
            started_at=started_at,
            ended_at=ended_at,
            logs=logs,
        )
    )


def _row(run_id: uuid.UUID, memo: StepRecord) -> list[Any]:
    return [
        ids.step_pk(run_id, memo.key),
        run_id,
        memo.key,
        memo.name,
        memo.kind,
        memo.parent,
        memo.position,
        memo.status,
        memo.attempt,
        memo.input,
        memo.output,
        *(
            None if tree is None else json.dumps(tree)
            for tree in (memo.error, memo.detail, memo.logs)
        ),
        memo.due_at,
        memo.started_at,
        memo.ended_at,
    ]


def _step(run_id: uuid.UUID, memo: StepRecord) -> Step:
    return Step(
        id=ids.step_pk(run_id, memo.key),
        run_id=run_id,
        key=memo.key,
        name=memo.name,
        kind=memo.kind,
        parent_id=memo.parent,
        position=memo.position,
        status=memo.status,
        attempt=memo.attempt,
        input=None if memo.input is None else EncodedJSON(memo.input),
        output=None if memo.output is None else EncodedJSON(memo.output),
        error=memo.error,
        detail=memo.detail,
        logs=memo.logs,
        due_at=memo.due_at,
        started_at=memo.started_at,
        ended_at=memo.ended_at,
    )
