"""Claim queued runs of one queue in a single statement."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from durable_jobs.models import Pause, Run
from durable_jobs.store import db
from durable_jobs.store.postgres import prepared

_RUN = Run._meta.db_table
_PAUSE = Pause._meta.db_table

_RUN_FIELDS = [field.attname for field in Run._meta.concrete_fields]
_RUN_COLUMNS = ", ".join(f'run."{field.column}"' for field in Run._meta.concrete_fields)

# A lost claim does no harm because its lease runs out, so the commit does not wait for
# the disk. MATERIALIZED: otherwise the planner may lock more rows than the limit.
_ASYNC_COMMIT = """
async_commit AS MATERIALIZED (
    SELECT set_config('synchronous_commit', 'off', true) AS value
)
"""
_READY = "status = 'queued' AND backlog IS NULL AND queue = %s::varchar"
_MAY_START = f"""
    due_at <= %s::timestamptz AND run_order <= %s::timestamptz
    AND (SELECT value FROM async_commit) = 'off'
    AND (started_at IS NOT NULL OR function NOT IN
         (SELECT name FROM {_PAUSE} WHERE kind = 'function'))
    AND NOT EXISTS (
        SELECT 1 FROM {_PAUSE} WHERE kind = 'queue' AND name = %s::varchar)
"""  # noqa: S608  # table and column names of our own models, no values
_UPDATE = f"""
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
WITH {_ASYNC_COMMIT}, chosen AS MATERIALIZED (
    SELECT id FROM {_RUN} WHERE {_READY} AND {_MAY_START}
    ORDER BY run_order, id LIMIT %s::int
    FOR UPDATE SKIP LOCKED
)
{_UPDATE}
"""  # noqa: S608  # table and column names of our own models, no values


def _by_function(
    per_function: str, condition: str, order: str, of_runs: str = "true"
) -> str:
    """Return a claim that reads the index function by function.

    ``per_function`` is the number of runs to read of each function; ``condition``
    selects the functions, ``of_runs`` the runs.
    """
    return f"""
WITH RECURSIVE {_ASYNC_COMMIT}, functions AS (
    (SELECT function AS name FROM {_RUN} WHERE {_READY} ORDER BY function LIMIT 1)
    UNION ALL
    SELECT (SELECT function FROM {_RUN} WHERE {_READY} AND function > functions.name
            ORDER BY function LIMIT 1)
    FROM functions WHERE functions.name IS NOT NULL
), chosen AS MATERIALIZED (
    SELECT candidate.id FROM functions CROSS JOIN LATERAL (
        SELECT id, run_order FROM {_RUN}
        WHERE {_READY} AND function = functions.name AND {_MAY_START}
            AND {of_runs}
        ORDER BY run_order, id LIMIT {per_function}
        FOR UPDATE SKIP LOCKED
    ) AS candidate
    WHERE {condition}
    ORDER BY {order} LIMIT %s::int
)
{_UPDATE}
"""  # noqa: S608  # table and column names of our own models, no values


_CLAIM_ONE_PER_FUNCTION = _by_function("1", "true", "random()")
# Excluding functions in this way costs the same however many of their runs are queued.
_NOT_EXCLUDED = "functions.name <> ALL(%s::varchar[])"
_RUN_NOT_EXCLUDED = "id <> ALL(%s::uuid[])"
_CLAIM_EXCLUDING = _by_function(
    "%s::int", _NOT_EXCLUDED, "candidate.run_order, candidate.id", _RUN_NOT_EXCLUDED
)
_CLAIM_ONE_PER_FUNCTION_EXCLUDING = _by_function(
    "%s::int", _NOT_EXCLUDED, "random()", _RUN_NOT_EXCLUDED
)


class ClaimRequest(NamedTuple):
    """The values that a claim writes, the current time, and the latest ``run_order``.

    A run with a ``run_order`` after ``latest_order`` is delayed and cannot start.
    """

    token: uuid.UUID
    lease_until: datetime
    worker: str
    now: datetime
    latest_order: datetime


def claim(
    queue: str,
    limit: int,
    request: ClaimRequest,
    *,
    one_per_function: bool,
    excluding: Sequence[str] = (),
    excluding_runs: Sequence[uuid.UUID] = (),
) -> list[Run]:
    """Claim up to ``limit`` runs of a queue in the order of ``run_order``.

    With ``one_per_function``, claim at most one run of each function, whatever its
    order. Functions in ``excluding`` and runs in ``excluding_runs`` are not claimed.
    """
    *lease_values, now, latest_order = request
    ready, update = [now, latest_order, queue], [limit, *lease_values, now]
    if excluding or excluding_runs:
        text = (
            _CLAIM_ONE_PER_FUNCTION_EXCLUDING if one_per_function else _CLAIM_EXCLUDING
        )
        condition = [
            list(excluding_runs),
            1 if one_per_function else limit,
            list(excluding),
        ]
        rows = prepared.fetch(text, [queue, queue, queue, *ready, *condition, *update])
    elif one_per_function:
        values = [queue, queue, queue, *ready, *update]
        rows = prepared.fetch(_CLAIM_ONE_PER_FUNCTION, values)
    else:
        rows = prepared.fetch(_CLAIM, [queue, *ready, *update])
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
