"""PostgreSQL's own statements for the three hot paths: claim, record, finish.

Each has a portable twin beside its caller and passes the same tests. One statement a
action: the round trip and the commit are the cost, not the work.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from durable_jobs.models import Pause, Run, Slot, Step
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.store import db
from durable_jobs.store.postgres import prepared

_RUN = Run._meta.db_table
_STEP = Step._meta.db_table
_PAUSE = Pause._meta.db_table
_SLOT = Slot._meta.db_table

_RUN_FIELDS = [field.attname for field in Run._meta.concrete_fields]
_RUN_COLUMNS = ", ".join(f'run."{field.column}"' for field in Run._meta.concrete_fields)

# Losing a claim loses nothing (the lease runs out), so it need not wait for the disk.
# MATERIALIZED: the planner may otherwise lock more rows than the limit.
_QUIET = """
quiet AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS value
)
"""
_READY = "status = 'queued' AND backlog IS NULL AND queue = %s::varchar"
_MAY_START = f"""
    due_at <= %s::timestamptz AND run_order <= %s::timestamptz
    AND (SELECT value FROM quiet) = 'off'
    AND (started_at IS NOT NULL OR function NOT IN
         (SELECT name FROM {_PAUSE} WHERE kind = 'function'))
    AND NOT EXISTS (
        SELECT 1 FROM {_PAUSE} WHERE kind = 'queue' AND name = %s::varchar)
"""  # noqa: S608  # table and column names of our own models, no values
_TAKE = f"""
UPDATE {_RUN} AS run
SET status = 'running', lease_token = %s::uuid, lease_until = %s::timestamptz,
    worker = %s::varchar,
    claim_count = claim_count + 1, crash_count = crash_count + 1,
    wake_requested = false,
    started_at = COALESCE(started_at, %s::timestamptz)
FROM chosen WHERE run.id = chosen.id
RETURNING {_RUN_COLUMNS}
"""  # noqa: S608  # table and column names of our own models, no values
_CLAIM = f"""
WITH {_QUIET}, chosen AS MATERIALIZED (
    SELECT id FROM {_RUN} WHERE {_READY} AND {_MAY_START}
    ORDER BY run_order, id LIMIT %s::int
    FOR UPDATE SKIP LOCKED
)
{_TAKE}
"""  # noqa: S608  # table and column names of our own models, no values


def _by_function(each: str, which: str, order: str) -> str:
    """Return a claim that goes from function to function in the index.

    ``each``: how many runs of one function it looks at; ``which``: of which functions.
    """
    return f"""
WITH RECURSIVE {_QUIET}, line AS (
    (SELECT function AS name FROM {_RUN} WHERE {_READY} ORDER BY function LIMIT 1)
    UNION ALL
    SELECT (SELECT function FROM {_RUN} WHERE {_READY} AND function > line.name
            ORDER BY function LIMIT 1)
    FROM line WHERE line.name IS NOT NULL
), chosen AS MATERIALIZED (
    SELECT head.id FROM line CROSS JOIN LATERAL (
        SELECT id, run_order FROM {_RUN}
        WHERE {_READY} AND function = line.name AND {_MAY_START}
        ORDER BY run_order, id LIMIT {each}
        FOR UPDATE SKIP LOCKED
    ) AS head
    WHERE {which}
    ORDER BY {order} LIMIT %s::int
)
{_TAKE}
"""  # noqa: S608  # table and column names of our own models, no values


_CLAIM_HEADS = _by_function("1", "true", "random()")
# Whatever the backlog of functions that this process does not have, it costs nothing.
_OTHERS = "line.name <> ALL(%s::varchar[])"
_CLAIM_OTHERS = _by_function("%s::int", _OTHERS, "head.run_order, head.id")
_CLAIM_OTHER_HEADS = _by_function("%s::int", _OTHERS, "random()")


class Lease(NamedTuple):
    """What runs are claimed with; none that may start has a place after ``behind``."""

    token: uuid.UUID
    until: datetime
    worker: str
    now: datetime
    behind: datetime


def claim(
    queue: str,
    limit: int,
    lease: Lease,
    *,
    heads: bool,
    passing_over: Sequence[str] = (),
) -> list[Run]:
    """Claim up to ``limit`` runs of a queue, the first in place first.

    ``heads``: no two of one function, whatever their places are. ``passing_over``: none
    of these functions.
    """
    *taking, now, behind = lease
    ready, taken = [now, behind, queue], [limit, *taking, now]
    if passing_over:
        text = _CLAIM_OTHER_HEADS if heads else _CLAIM_OTHERS
        which = [1 if heads else limit, list(passing_over)]
        rows = prepared.fetch(text, [queue, queue, queue, *ready, *which, *taken])
    elif heads:
        rows = prepared.fetch(_CLAIM_HEADS, [queue, queue, queue, *ready, *taken])
    else:
        rows = prepared.fetch(_CLAIM, [queue, *ready, *taken])
    return sorted(map(_run, rows), key=lambda run: (run.run_order, run.pk))


def _run(row: Sequence[Any]) -> Run:
    connection = db.connection()
    values = [
        field.from_db_value(value, None, connection)
        if hasattr(field, "from_db_value")
        else value
        for field, value in zip(Run._meta.concrete_fields, row, strict=True)
    ]
    return Run.from_db(db.alias(), _RUN_FIELDS, values)


STEP_COLUMNS = {
    "id": "uuid",
    "run_id": "uuid",
    "key": "varchar",
    "name": "varchar",
    "kind": "varchar",
    "parent_id": "uuid",
    "position": "int",
    "status": "varchar",
    "attempt": "int",
    "input": "text",
    "output": "text",
    "error": "jsonb",
    "detail": "jsonb",
    "logs": "jsonb",
    "due_at": "timestamptz",
    "started_at": "timestamptz",
    "ended_at": "timestamptz",
}
_ENDED = ", ".join(f"'{status}'" for status in sorted(STEP_ENDED))
_NAMES = ", ".join(STEP_COLUMNS)
#: What the first record of a step says for good.
_FIXED = {"id", "run_id", "key", "name", "kind", "parent_id", "position", "input"}
_CHANGES = ", ".join(
    f"{name} = EXCLUDED.{name}" for name in STEP_COLUMNS if name not in _FIXED
)

# The row lock makes a claim or a cancel that commits meanwhile count: without it the
# statement would go by the run as it was when the statement began.
_FENCE = f"""
WITH fence AS MATERIALIZED (
    SELECT status FROM {_RUN} WHERE id = %s::uuid AND lease_token = %s::uuid
    FOR NO KEY UPDATE
)
"""  # noqa: S608  # table and column names of our own models, no values
_WRITTEN = f"""
, written AS (
    INSERT INTO {_STEP} ({_NAMES})
    SELECT row.* FROM fence, %ROWS% AS row ({_NAMES})
    ON CONFLICT (id) DO UPDATE SET {_CHANGES}
    WHERE {_STEP}.status NOT IN ({_ENDED})
)
"""  # noqa: S608  # table and column names of our own models, no values


_ONE = "(VALUES (" + ", ".join(f"%s::{kind}" for kind in STEP_COLUMNS.values()) + "))"
# One text, taken apart by the server: the driver writes arrays in Python, which takes
# longer than all that the server has to do.
_FIELDS = ", ".join(f"{name}::{kind}" for name, kind in STEP_COLUMNS.items())
_LINE = ", ".join(
    f"{name} {'text' if kind == 'jsonb' else kind}"
    for name, kind in STEP_COLUMNS.items()
)
_MANY = f"(SELECT {_FIELDS} FROM json_to_recordset(%s::json) AS line ({_LINE}))"  # noqa: S608  # names of our own columns, no values


def written(rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """Return what writes steps in a statement that has a ``fence``, and its values.

    It has two texts in all, so that few statements are prepared.
    """
    if not rows:
        return "", []
    if len(rows) == 1:
        return _WRITTEN.replace("%ROWS%", _ONE), list(rows[0])
    lines = [dict(zip(STEP_COLUMNS, row, strict=True)) for row in rows]
    text = json.dumps(lines, default=str, ensure_ascii=False)
    return _WRITTEN.replace("%ROWS%", _MANY), [text]


def record(
    run_id: uuid.UUID, token: uuid.UUID, rows: Sequence[Sequence[Any]]
) -> str | None:
    """Write steps if the lease is held; return the run's status, None when lost."""
    text, values = written(rows)
    statement = f"{_FENCE}{text}SELECT status FROM fence"  # noqa: S608  # no values
    found = prepared.fetch(statement, [run_id, token, *values])
    return found[0][0] if found else None


# Without what is for people alone.
# Reading a time takes Django longer than all the rest of a row, and a replay asks one
# question of it: which step ended before which.
_LOAD = f"""
SELECT key, name, kind, status, position, attempt, output, error, detail, due_at,
    CASE WHEN status NOT IN ({_ENDED}) THEN started_at END,
    date_part('epoch', ended_at), parent_id
FROM {_STEP} WHERE run_id = %s::uuid ORDER BY position
"""  # noqa: S608  # table and column names of our own models, no values


def load(run_id: uuid.UUID) -> list[list[Any]]:
    """Return the steps of a run in order, their outputs as JSON text.

    Those that have ended come without the time at which they began.
    """
    rows = [list(row) for row in prepared.fetch(_LOAD, [run_id])]
    for row in rows:
        row[7:9] = (None if text is None else json.loads(text) for text in row[7:9])
        if row[11] is not None:  # to the microsecond: a double holds these times
            row[11] = datetime.fromtimestamp(row[11], UTC)
    return rows


class Ending(NamedTuple):
    """What a run's row has at its end. ``output`` and ``error`` are JSON text."""

    status: str
    output: str | None
    error: str | None
    reason: str
    ended_at: datetime


#: Takes the values of an ``Ending``.
ENDED = """
SET status = %s::varchar, output = %s::jsonb, error = %s::jsonb, reason = %s::text,
    ended_at = %s::timestamptz, lease_token = NULL, lease_until = NULL, crash_count = 0
"""
_FINISH = f"""
UPDATE {_RUN} {ENDED}
WHERE id = %s::uuid AND lease_token = %s::uuid AND status = 'running' AND NOT awaited
RETURNING id
"""

# With the slots that the run holds, where it has flow control.
_FINISH_HOLDING = f"""
WITH done AS ({_FINISH}),
freed AS (
    UPDATE {_SLOT} SET released_at = %s::timestamptz FROM done
    WHERE run_id = done.id AND released_at IS NULL
)
SELECT id FROM done
"""  # noqa: S608  # table and column names of our own models, no values


def finish(
    lease: tuple[uuid.UUID, uuid.UUID], ending: Ending, *, holding: bool
) -> bool:
    """End a run that nothing hangs on if the lease is held; return whether it did.

    A run that others wait for is left as it is. ``holding``: it may hold slots, which
    are released.
    """
    values = [*ending, *lease]
    if holding:
        return bool(prepared.fetch(_FINISH_HOLDING, [*values, ending.ended_at]))
    return bool(prepared.fetch(_FINISH, values))
