"""PostgreSQL's own statements for runs that wait: suspend, wake on time, and end.

As in ``postgres``: one statement an action, and a portable twin beside each caller.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from durable_jobs import ids
from durable_jobs.models import Run, Slot, Step, Wait
from durable_jobs.statuses import LIVE, STEP_ENDED
from durable_jobs.store.postgres import prepared, statements

_RUN = Run._meta.db_table
_STEP = Step._meta.db_table
_WAIT = Wait._meta.db_table
_SLOT = Slot._meta.db_table

_LIVE = ", ".join(f"'{status}'" for status in sorted(LIVE))
_STEP_ENDED = ", ".join(f"'{status}'" for status in sorted(STEP_ENDED))

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

# The fence locks the run as it is now; who was woken meanwhile is queued at once. A run
# that was paused meanwhile stays so.
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


# The slots of a run: those of its steps, or all of them.
_FREED = f"""
, freed AS (
    UPDATE {_SLOT} SET released_at = %s::timestamptz FROM %FROM%
    WHERE run_id = %s::uuid AND released_at IS NULL %WHICH%
)
"""  # noqa: S608  # table and column names of our own models, no values
_FREED_STEPS = _FREED.replace("%FROM%", "fence").replace("%WHICH%", "AND steps")
_FREED_ALL = _FREED.replace("%FROM%", "ended").replace("%WHICH%", "")


def suspend(
    lease: tuple[uuid.UUID, uuid.UUID],
    steps: Sequence[Sequence[Any]],
    waits: Sequence[tuple[str, Any]],
    *,
    queue: str | None,
    due_at: datetime | None,
    attempt: int | None,
    now: datetime,
    holding: bool,
    database_errors: int,
) -> str | None:
    """Give a lease back with what the run waits for; return its status, None if lost.

    ``steps`` are rows in the order of their columns, ``waits`` the keys of steps with
    what they wait for. ``holding``: it may hold
    slots for its steps, which are released.
    """
    written, step_values = statements.written(steps)
    rows = ", ".join([_ROW] * len(waits))
    registered = _REGISTER.replace("%WAITS%", rows) if waits else ""
    text = _SUSPEND.replace("%WRITTEN%", written).replace("%REGISTERED%", registered)
    text = text.replace("%FREED%", _FREED_STEPS if holding else "")
    values = [
        *(*lease, due_at, now),
        *step_values,
        *(v for key, wait in waits for v in _wait_row(lease[0], key, wait, now)),
        *((now, lease[0]) if holding else ()),
        *(queue, attempt, database_errors, *lease),
    ]
    found = prepared.fetch(text, values)
    return found[0][0] if found else None


def _wait_row(run_id: uuid.UUID, step: str, wait: Any, now: datetime) -> list[Any]:
    """Return the values of a new wait in the order of its columns."""
    condition = _json(wait.condition)
    return [
        *(run_id, step, wait.kind, wait.name, wait.match, wait.branch),
        *(condition, wait.due_at, now),
    ]


# No child of a run is made but by its own attempt, which holds the lease.
_FINISH = f"""
WITH ended AS (
    UPDATE {_RUN} {statements.ENDED}
    WHERE id = %s::uuid AND lease_token = %s::uuid AND status = 'running'
      AND NOT awaited AND NOT EXISTS (
        SELECT 1 FROM {_RUN} AS child
        WHERE child.parent_id = %s::uuid AND child.parent_relation = 'invoke'
          AND child.status IN ({_LIVE})
      )
    RETURNING id
), dropped AS (
    DELETE FROM {_WAIT} USING ended WHERE run_id = ended.id
), cancelled AS (
    UPDATE {_STEP} AS step
    SET status = 'cancelled', due_at = NULL, ended_at = %s::timestamptz
    FROM ended WHERE step.run_id = ended.id AND step.status NOT IN ({_STEP_ENDED})
    RETURNING step.id
)
%FREED%
SELECT ARRAY(SELECT id FROM cancelled) FROM ended
"""  # noqa: S608  # table and column names of our own models, no values


def finish(
    lease: tuple[uuid.UUID, uuid.UUID], ending: statements.Ending, *, holding: bool
) -> list[uuid.UUID] | None:
    """End a run with its waits and open steps; return these steps.

    ``holding``: it may hold slots, which are released. None: the lease is lost, a
    run that it invoked is still live, or other runs wait for its end.
    """
    now = ending.ended_at
    values = [*ending, *lease, lease[0], now]
    text = _FINISH.replace("%FREED%", _FREED_ALL if holding else "")
    values += [now, lease[0]] if holding else []
    found = prepared.fetch(text, values)
    return list(found[0][0]) if found else None


class WokenRun(NamedTuple):
    """A run that goes on."""

    id: uuid.UUID
    function: str
    queue: str
    #: Where it stood before.
    status: str
    #: The key of the step that has ended, if one has.
    ended: str | None


# A run that is not waiting goes on by itself, and finds that it was woken.
_WAKE = f"""
    UPDATE {_RUN} AS run
    SET wake_requested = true,
        due_at = CASE WHEN run.status = 'waiting' THEN %s::timestamptz
            ELSE run.due_at END,
        backlog = CASE WHEN run.status = 'waiting' THEN run.requeue_to
            ELSE run.backlog END,
        status = CASE WHEN run.status = 'waiting' THEN 'queued' ELSE run.status END
""".strip()  # noqa: S608  # table and column names of our own models, no values

# Whoever waits for the lock goes by the waits as they were when the statement began;
# a row that another has deleted meanwhile is passed over, so the first one wins.
_TAKE = f"""
WITH locked AS MATERIALIZED (
    SELECT id, status, function, queue FROM {_RUN}
    WHERE id = %s::uuid AND status IN ({_LIVE})
    FOR NO KEY UPDATE
), taken AS (
    DELETE FROM {_WAIT} AS wait USING locked
    WHERE wait.id = %s::bigint AND wait.run_id = locked.id
      AND NOT EXISTS (
        SELECT 1 FROM {_WAIT} AS late
        WHERE late.run_id = locked.id AND late.step = wait.step
          AND late.kind = 'timeout' AND late.due_at < %s::timestamptz
      )
    RETURNING wait.id, wait.run_id
)
%ENDED%
, wake_requested AS (
    {_WAKE}
    FROM taken WHERE run.id = taken.run_id
)
SELECT locked.id, locked.function, locked.queue, locked.status, %WHAT%
FROM locked JOIN taken ON taken.run_id = locked.id
"""  # noqa: S608  # table and column names of our own models, no values
_END = f"""
, dropped AS (
    DELETE FROM {_WAIT} AS wait USING taken
    WHERE wait.run_id = taken.run_id AND wait.step = %s::varchar AND wait.id <> taken.id
), ended AS (
    UPDATE {_STEP} AS step
    SET status = %s::varchar, output = %s::text, error = %s::jsonb,
        detail = COALESCE(%s::jsonb, step.detail), due_at = NULL,
        ended_at = %s::timestamptz
    FROM taken
    WHERE step.id = %s::uuid AND step.run_id = taken.run_id
      AND step.status NOT IN ({_STEP_ENDED})
    RETURNING step.key
)
"""  # noqa: S608  # table and column names of our own models, no values
_TAKE_ONLY = _TAKE.replace("%ENDED%", "").replace("%WHAT%", "NULL")
_RESOLVE = _TAKE.replace("%ENDED%", _END).replace("%WHAT%", "(SELECT key FROM ended)")

#: A wait: its id, its run's, and the key of its step.
Place = tuple[int, uuid.UUID, str]


def take(place: Place, happened_at: datetime | None, now: datetime) -> WokenRun | None:
    """End a wait and wake its run; None when another was first, or it has ended.

    So it is when a timeout of the step was due before ``happened_at``.
    """
    wait_id, run_id, _ = place
    rows = prepared.fetch(_TAKE_ONLY, [run_id, wait_id, happened_at, now])
    return WokenRun(*rows[0]) if rows else None


def resolve(
    place: Place,
    happened_at: datetime | None,
    status: str,
    output: str | None,
    error: dict[str, Any] | None,
    detail: dict[str, Any] | None,
    now: datetime,
) -> WokenRun | None:
    """Do as ``take``, and end the step with all its waits."""
    wait_id, run_id, step = place
    ending = [status, output, _json(error), _json(detail), now]
    step_id = ids.step_pk(run_id, step)
    taking = [run_id, wait_id, happened_at]
    rows = prepared.fetch(_RESOLVE, [*taking, step, *ending, step_id, now])
    return WokenRun(*rows[0]) if rows else None


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


# As a claim, waking need not wait for the disk: if it is lost, the timer is due again,
# and what the run did then was written after it, so that is lost as well.
_EXPIRE = f"""
WITH quiet AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS value
), found AS MATERIALIZED (
    SELECT id, run_id, step, kind, kind = ANY(%s::varchar[]) AS wakes FROM {_WAIT}
    WHERE due_at <= %s::timestamptz AND kind = ANY(%s::varchar[])
      AND (SELECT value FROM quiet) = 'off'
    ORDER BY due_at LIMIT %s::int
), due AS (
    SELECT * FROM found WHERE wakes
), locked AS MATERIALIZED (
    SELECT id, status, function, queue FROM {_RUN}
    WHERE id IN (SELECT run_id FROM due) AND status IN ({_LIVE})
    ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
), taken AS (
    DELETE FROM {_WAIT} AS wait USING due, locked
    WHERE wait.id = due.id AND locked.id = due.run_id
    RETURNING wait.run_id, CASE WHEN due.kind = 'sleep' THEN due.step END AS slept
), ended AS (
    UPDATE {_STEP} AS step
    SET status = 'completed', due_at = NULL, ended_at = %s::timestamptz
    FROM taken
    WHERE step.run_id = taken.run_id AND step.key = taken.slept
      AND step.status = 'sleeping'
), wake_requested AS (
    {_WAKE}
    WHERE run.id IN (SELECT run_id FROM taken)
)
SELECT NULL::bigint, locked.id, locked.function, locked.queue, locked.status,
    taken.slept
FROM taken JOIN locked ON locked.id = taken.run_id
UNION ALL
SELECT id, NULL, NULL, NULL, NULL, NULL FROM found WHERE NOT wakes
"""  # noqa: S608  # table and column names of our own models, no values


def expire(
    waking: Sequence[str], others: Sequence[str], limit: int, now: datetime
) -> tuple[list[WokenRun], list[int]]:
    """End up to ``limit`` sleeps and retries that are due, and wake their runs.

    Runs that others have locked are left for the next sweep. Waits of the kinds in
    ``others`` count and are left, and their ids are returned.
    """
    values = [list(waking), now, [*waking, *others], limit, now, now]
    rows = prepared.fetch(_EXPIRE, values)
    woken = [WokenRun(*row[1:]) for row in rows if row[0] is None]
    return woken, [row[0] for row in rows if row[0] is not None]
