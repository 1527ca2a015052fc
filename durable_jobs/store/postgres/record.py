"""Write the steps of a run under its lease, and load them for a replay."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from durable_jobs.models import Run, Step
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.store.postgres import prepared

if TYPE_CHECKING:
    from durable_jobs.store.leases import Lease

_RUN = Run._meta.db_table
_STEP = Step._meta.db_table

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
#: Columns that the first record of a step sets and later records never change.
_FIXED = {"id", "run_id", "key", "name", "kind", "parent_id", "position", "input"}
_CHANGES = ", ".join(
    f"{name} = EXCLUDED.{name}" for name in STEP_COLUMNS if name not in _FIXED
)

# The row lock makes the statement see a claim or a cancel that commits while it runs.
# Without the lock, the statement would use the run as of its own start.
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
# Several rows go as one JSON text that the server parses: the driver builds arrays in
# Python, which takes longer than the whole statement takes on the server.
_FIELDS = ", ".join(f"{name}::{kind}" for name, kind in STEP_COLUMNS.items())
_RECORD_FIELDS = ", ".join(
    f"{name} {'text' if kind == 'jsonb' else kind}"
    for name, kind in STEP_COLUMNS.items()
)
_MANY = (
    f"(SELECT {_FIELDS} FROM json_to_recordset(%s::json) AS record ({_RECORD_FIELDS}))"  # noqa: S608  # names of our own columns, no values
)


def write_clause(rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """Return a CTE that writes steps, for a statement with a ``fence``, and its values.

    The CTE has only two texts, for one row and for several, so that few statements are
    prepared.
    """
    if not rows:
        return "", []
    if len(rows) == 1:
        return _WRITTEN.replace("%ROWS%", _ONE), list(rows[0])
    records = [dict(zip(STEP_COLUMNS, row, strict=True)) for row in rows]
    text = json.dumps(records, default=str, ensure_ascii=False)
    return _WRITTEN.replace("%ROWS%", _MANY), [text]


def record(lease: Lease, rows: Sequence[Sequence[Any]]) -> str | None:
    """Write steps and return the run's status, or None if the lease is lost."""
    text, values = write_clause(rows)
    statement = f"{_FENCE}{text}SELECT status FROM fence"  # noqa: S608  # no values
    found = prepared.fetch(statement, [*lease, *values])
    return found[0][0] if found else None


# Columns that only people read are not loaded. ``started_at`` of an ended step and
# ``ended_at`` as a datetime are left out because Django parses a time more slowly than
# the rest of the row. A replay needs ``ended_at`` only to order the steps.
_LOAD = f"""
SELECT key, name, kind, status, position, attempt, output, error, detail, due_at,
    CASE WHEN status NOT IN ({_ENDED}) THEN started_at END,
    date_part('epoch', ended_at), parent_id
FROM {_STEP} WHERE run_id = %s::uuid ORDER BY position
"""  # noqa: S608  # table and column names of our own models, no values


def load(run_id: uuid.UUID) -> list[list[Any]]:
    """Return the steps of a run in order, with outputs as JSON text.

    ``started_at`` of an ended step is None.
    """
    rows = [list(row) for row in prepared.fetch(_LOAD, [run_id])]
    for row in rows:
        row[7:9] = (None if text is None else json.loads(text) for text in row[7:9])
        if row[11] is not None:  # exact to the microsecond in a double
            row[11] = datetime.fromtimestamp(row[11], UTC)
    return rows
