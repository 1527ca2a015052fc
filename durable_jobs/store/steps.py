"""The recorded steps of runs: loaded once per attempt, written once per step."""

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
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.signals import announce, step_changed
from durable_jobs.statuses import STEP_ENDED, StepStatus
from durable_jobs.store import db
from durable_jobs.store.leases import Lease, LeaseLost
from durable_jobs.store.postgres import record as record_statement


@dataclass(slots=True)
class StepRecord:
    """A step in the memory of an attempt.

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
    #: The primary key of the parent step.
    parent: uuid.UUID | None = None
    input: str | None = None
    logs: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Return whether the step has ended, so that its record never changes again."""
        return self.status in STEP_ENDED

    def but(self, **changes: Any) -> StepRecord:
        """Return a copy with other values."""
        return replace(self, **changes)


def load(run_id: uuid.UUID) -> dict[str, StepRecord]:
    """Return all that a replay of a run needs of its steps, by key, in one query."""
    if db.is_postgres():
        return {row[0]: StepRecord(*row) for row in record_statement.load(run_id)}
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


def record(lease: Lease, records: Sequence[StepRecord]) -> str:
    """Write steps under a lease and return the run's status.

    A step that has ended is never overwritten. Raise ``LeaseLost`` if the lease is not
    held.
    """
    failpoint("record.begin", records[-1].name)
    if db.is_postgres():
        status = record_statement.record(lease, rows_of(lease.run_id, records))
    else:
        with db.atomic():
            status = fence(lease)
            write(lease.run_id, records)
    if status is None:
        raise LeaseLost
    failpoint("record.committed", records[-1].name)
    return status


def rows_of(run_id: uuid.UUID, records: Iterable[StepRecord]) -> list[list[Any]]:
    """Return the values of steps in the order of ``STEP_COLUMNS``."""
    return [_row(run_id, record) for record in _latest(records)]


def _latest(records: Iterable[StepRecord]) -> Iterable[StepRecord]:
    """Return the last record of each step: a branch may begin and end in one write."""
    return {step.key: step for step in records}.values()


def record_with(
    lease: Lease,
    records: Sequence[StepRecord],
    effect: Callable[[], StepRecord],
    *,
    drop_waits: bool = False,
) -> tuple[StepRecord, str]:
    """Call ``effect`` and write the step that it returns, in one transaction.

    The run is locked first, so that without the lease ``effect`` is not called. Write
    ``records`` in the same transaction. Return the step and the run's status.
    """
    with db.atomic():
        status = fence(lease)
        failpoint("record.locked")
        step = effect()
        write(lease.run_id, [*records, step])
        if drop_waits:
            from durable_jobs.store import waits

            waits.drop(lease.run_id, step.key)
        failpoint("record.written", step.name)
    failpoint("record.committed", step.name)
    return step, status


def fence(lease: Lease) -> str:
    """Lock the run and return its status, inside the caller's transaction.

    Raise ``LeaseLost`` if the lease is not held any more.
    """
    rows = db.rows(Run).filter(pk=lease.run_id, lease_token=lease.token)
    if db.lockable():
        rows = rows.select_for_update(no_key=True)
    status = rows.values_list("status", flat=True).first()
    if status is None:
        raise LeaseLost
    return status


def write(run_id: uuid.UUID, records: Iterable[StepRecord]) -> None:
    """Write steps inside the caller's transaction, which has locked the run."""
    rows = [_step(run_id, step) for step in _latest(records)]
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


#: Fields that a later record changes. The first record sets the others for good.
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
    """End an open step inside a transaction that has locked its run.

    Return whether the step was open.
    """
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
    """Cancel the open steps among ``rows``, whose run the caller has locked."""
    rows = rows.exclude(status__in=sorted(STEP_ENDED))
    keys = list(rows.values_list("pk", flat=True)) if step_changed.receivers else []
    rows.update(status=StepStatus.CANCELLED, due_at=None, ended_at=clock.now())
    announce_steps(keys)


def announce_steps(keys: Sequence[uuid.UUID]) -> None:
    """Send ``step_changed`` for steps that ended outside of an attempt.

    Without receivers, no query is made.
    """
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


def record_failed_attempt(
    run_id: uuid.UUID,
    step: str,
    number: int,
    error: dict[str, Any],
    started_at: datetime | None,
    ended_at: datetime,
    logs: dict[str, Any] | None = None,
) -> None:
    """Record the error of an attempt that will be retried.

    ``number`` counts the attempts from 0.
    """
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


def _row(run_id: uuid.UUID, record: StepRecord) -> list[Any]:
    return [
        ids.step_pk(run_id, record.key),
        run_id,
        record.key,
        record.name,
        record.kind,
        record.parent,
        record.position,
        record.status,
        record.attempt,
        record.input,
        record.output,
        *(
            None if tree is None else json.dumps(tree)
            for tree in (record.error, record.detail, record.logs)
        ),
        record.due_at,
        record.started_at,
        record.ended_at,
    ]


def _step(run_id: uuid.UUID, record: StepRecord) -> Step:
    return Step(
        id=ids.step_pk(run_id, record.key),
        run_id=run_id,
        key=record.key,
        name=record.name,
        kind=record.kind,
        parent_id=record.parent,
        position=record.position,
        status=record.status,
        attempt=record.attempt,
        input=None if record.input is None else EncodedJSON(record.input),
        output=None if record.output is None else EncodedJSON(record.output),
        error=record.error,
        detail=record.detail,
        logs=record.logs,
        due_at=record.due_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )
