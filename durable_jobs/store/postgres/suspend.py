"""Suspend a run: write its steps and waits, and release its lease."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from durable_jobs.models import Run, Slot, Wait
from durable_jobs.store.postgres import prepared, record

if TYPE_CHECKING:
    from durable_jobs.store.leases import Lease
    from durable_jobs.store.waits import NewWait

_RUN = Run._meta.db_table
_WAIT = Wait._meta.db_table
_SLOT = Slot._meta.db_table

WAIT_COLUMNS = {
    "run_id": "uuid",
    "step": "varchar",
    "kind": "varchar",
    "name": "varchar",
    "match": "varchar",
    "branch": "varchar",
    "condition": "jsonb",
    "due_at": "timestamptz",
    "created_at": "timestamptz",
}
_NAMES = ", ".join(WAIT_COLUMNS)
_ROW = "(" + ", ".join(f"%s::{kind}" for kind in WAIT_COLUMNS.values()) + ")"
_REGISTER = f"""
, registered AS (
    INSERT INTO {_WAIT} ({_NAMES})
    SELECT row.* FROM fence, (VALUES %WAITS%) AS row ({_NAMES})
)
"""  # noqa: S608  # table and column names of our own models, no values

# The fence locks the run in its current state. If the run was woken during the attempt,
# it is queued at once. If it was paused, it stays paused.
_SUSPEND = f"""
WITH fence AS MATERIALIZED (
    SELECT status, wake_requested FROM {_RUN}
    WHERE id = %s::uuid AND lease_token = %s::uuid
    FOR NO KEY UPDATE
), eligible AS (
    SELECT status, CASE
        WHEN status = 'running' THEN
            COALESCE(%s::timestamptz, CASE WHEN wake_requested THEN %s::timestamptz END)
    END AS due_at
    FROM fence
)
%WRITTEN%%REGISTERED%%FREED%
UPDATE {_RUN} AS run
SET lease_token = NULL, lease_until = NULL, crash_count = 0, wake_requested = false,
    queue = COALESCE(%s::varchar, run.queue),
    attempt = COALESCE(%s::int, run.attempt),
    database_errors = %s::int,
    due_at = COALESCE(eligible.due_at, run.due_at),
    status = CASE
        WHEN eligible.status <> 'running' THEN eligible.status
        WHEN eligible.due_at IS NULL THEN 'waiting'
        ELSE 'queued'
    END,
    backlog = CASE
        WHEN eligible.status = 'running' AND eligible.due_at IS NOT NULL
            THEN run.requeue_to
        ELSE run.backlog
    END
FROM eligible WHERE run.id = %s::uuid AND run.lease_token = %s::uuid
RETURNING run.status
"""  # noqa: S608  # table and column names of our own models, no values
_FREED_STEPS = f"""
, freed AS (
    UPDATE {_SLOT} SET released_at = %s::timestamptz FROM fence
    WHERE run_id = %s::uuid AND released_at IS NULL AND steps
)
"""  # noqa: S608  # table and column names of our own models, no values


def suspend(
    lease: Lease,
    steps: Sequence[Sequence[Any]],
    waits: Sequence[tuple[str, NewWait]],
    *,
    queue: str | None,
    due_at: datetime | None,
    failure_count: int | None,
    now: datetime,
    release_slots: bool,
    database_errors: int,
) -> str | None:
    """Suspend a run and return its new status, or None if the lease is lost.

    ``steps`` are rows in the order of ``STEP_COLUMNS``; ``waits`` are pairs of a step
    key and a wait. With ``release_slots``, release the slots of the run's steps.
    """
    written, step_values = record.write_clause(steps)
    rows = ", ".join([_ROW] * len(waits))
    registered = _REGISTER.replace("%WAITS%", rows) if waits else ""
    text = _SUSPEND.replace("%WRITTEN%", written).replace("%REGISTERED%", registered)
    text = text.replace("%FREED%", _FREED_STEPS if release_slots else "")
    values = [
        *(*lease, due_at, now),
        *step_values,
        *(v for key, wait in waits for v in _wait_row(lease.run_id, key, wait, now)),
        *((now, lease.run_id) if release_slots else ()),
        *(queue, failure_count, database_errors, *lease),
    ]
    found = prepared.fetch(text, values)
    return found[0][0] if found else None


def _wait_row(run_id: uuid.UUID, step: str, wait: NewWait, now: datetime) -> list[Any]:
    """Return the values of a new wait in the order of ``WAIT_COLUMNS``."""
    condition = None if wait.condition is None else json.dumps(wait.condition)
    return [
        *(run_id, step, wait.kind, wait.name, wait.match, wait.branch),
        *(condition, wait.due_at, now),
    ]
