"""End waits and make their runs eligible again."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from durable_jobs import ids
from durable_jobs.models import Run, Step, Wait
from durable_jobs.statuses import LIVE, STEP_ENDED
from durable_jobs.store.postgres import prepared

_RUN = Run._meta.db_table
_STEP = Step._meta.db_table
_WAIT = Wait._meta.db_table

_LIVE = ", ".join(f"'{status}'" for status in sorted(LIVE))
_STEP_ENDED = ", ".join(f"'{status}'" for status in sorted(STEP_ENDED))


class WokenRun(NamedTuple):
    """A run that a wait's end made eligible."""

    id: uuid.UUID
    function: str
    queue: str
    #: Its status before.
    status: str
    #: The key of the step that ended, if any.
    ended: str | None


class WaitRef(NamedTuple):
    """The id of a wait, the id of its run and the key of its step."""

    id: int
    run_id: uuid.UUID
    step: str


# A run that is not waiting keeps its status. Its attempt reads ``wake_requested`` when
# it suspends the run.
_WAKE = f"""
    UPDATE {_RUN} AS run
    SET wake_requested = true,
        due_at = CASE WHEN run.status = 'waiting' THEN %s::timestamptz
            ELSE run.due_at END,
        backlog = CASE WHEN run.status = 'waiting' THEN run.requeue_to
            ELSE run.backlog END,
        status = CASE WHEN run.status = 'waiting' THEN 'queued' ELSE run.status END
""".strip()  # noqa: S608  # table and column names of our own models, no values

# After waiting for the lock, a statement still sees the waits as of its start. DELETE
# skips a row that another transaction has deleted since, so the first one wins.
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
SELECT locked.id, locked.function, locked.queue, locked.status, %STEP_KEY%
FROM locked JOIN taken ON taken.run_id = locked.id
"""  # noqa: S608  # table and column names of our own models, no values
_END_STEP = f"""
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
_END_WAIT = _TAKE.replace("%ENDED%", "").replace("%STEP_KEY%", "NULL")
_RESOLVE = _TAKE.replace("%ENDED%", _END_STEP).replace(
    "%STEP_KEY%", "(SELECT key FROM ended)"
)


def end_wait(
    wait: WaitRef, happened_at: datetime | None, now: datetime
) -> WokenRun | None:
    """End a wait and wake its run; return None if the wait has ended already.

    A timeout of the same step that was due before ``happened_at`` also ends the wait.
    """
    rows = prepared.fetch(_END_WAIT, [wait.run_id, wait.id, happened_at, now])
    return WokenRun(*rows[0]) if rows else None


def resolve(
    wait: WaitRef,
    happened_at: datetime | None,
    status: str,
    output: str | None,
    error: dict[str, Any] | None,
    detail: dict[str, Any] | None,
    now: datetime,
) -> WokenRun | None:
    """Do as ``end_wait``, and end the step and all its waits."""
    ending = [status, output, _json(error), _json(detail), now]
    step_id = ids.step_pk(wait.run_id, wait.step)
    taking = [wait.run_id, wait.id, happened_at]
    rows = prepared.fetch(_RESOLVE, [*taking, wait.step, *ending, step_id, now])
    return WokenRun(*rows[0]) if rows else None


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value)


# As in a claim, the commit does not wait for the disk. If the commit is lost, the timer
# is due again, and later writes of the run are lost with it.
_EXPIRE = f"""
WITH async_commit AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS value
), found AS MATERIALIZED (
    SELECT id, run_id, step, kind, kind = ANY(%s::varchar[]) AS wakes FROM {_WAIT}
    WHERE due_at <= %s::timestamptz AND kind = ANY(%s::varchar[])
      AND (SELECT value FROM async_commit) = 'off'
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
    """End up to ``limit`` due waits of the kinds in ``waking``, and wake their runs.

    Skip runs that are locked; the next sweep finds them. Due waits of the kinds in
    ``others`` count towards ``limit``; they are not ended, and their ids are returned.
    """
    values = [list(waking), now, [*waking, *others], limit, now, now]
    rows = prepared.fetch(_EXPIRE, values)
    woken = [WokenRun(*row[1:]) for row in rows if row[0] is None]
    return woken, [row[0] for row in rows if row[0] is not None]
