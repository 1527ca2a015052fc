"""Fill the tables with finished runs, sleeping runs, due timers and waits.

SQL statements generate the rows in the server, so millions of runs are possible. Only
runs with due timers are copied from Python.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.db import connection

from durable_jobs import clock, ids
from durable_jobs.models import Run, Step, Wait

#: Runs of one statement.
BATCH = 250_000
#: The first number of generated runs. Started runs have smaller numbers.
FIRST = 1_000_000_000

_KEYS = [ids.step_key(f"step {number}") for number in range(5)]
_BEFORE, _SLEEP = ids.step_key("before"), ids.step_key("sleep")

#: Ids that sort by time, like the ids of the engine: one run per millisecond in the
#: past. The ids of steps start with the first half of their run's id.
_CHOSEN = """
WITH chosen AS MATERIALIZED (
    SELECT n, moment, (
        lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0')
        || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15)
    )::uuid AS id
    FROM (
        SELECT n, now() - interval '1 hour' - n * interval '1 millisecond' AS moment
        FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
    ) AS numbered
)
"""
_RUN = """
INSERT INTO durable_jobs_run (
    id, function, version, status, reason, trigger, key, event_id, event_meta, data,
    output, parent_step, parent_relation, queue, due_at, run_order, worker, attempt,
    claim_count, crash_count, wake_requested, queued_at, started_at, ended_at
)
SELECT id, %(function)s, '', %(status)s, '', 'bench/steps', '', 'past-' || n,
    jsonb_build_object('id', 'past-' || n, 'name', 'bench/steps', 'ts', moment),
    jsonb_build_object('run', n, 'steps', 5),
    CASE WHEN %(status)s = 'completed' THEN '5'::jsonb END,
    '', '', 'default', moment, moment, 'host:1', 0, 1, 0, false, moment, moment,
    CASE WHEN %(status)s = 'completed' THEN moment END
FROM chosen
"""
_STEP = """
INSERT INTO durable_jobs_step (
    id, run_id, key, name, kind, position, status, attempt, output, due_at, started_at,
    ended_at
)
SELECT (substr(id::text, 1, 18) || substr(md5(id::text || position), 1, 4)
        || substr(md5(id::text || position), 5, 12))::uuid,
    id, (%(keys)s::text[])[position + 1], 'step ' || position, %(kind)s, position,
    %(step)s, 0, CASE WHEN %(step)s = 'completed' THEN position::text END,
    CASE WHEN %(step)s = 'sleeping' THEN now() + interval '300 days' END,
    moment, CASE WHEN %(step)s = 'completed' THEN moment END
FROM chosen, generate_series(0, %(steps)s - 1) AS position
"""
_EVENT = """
INSERT INTO durable_jobs_event (
    id, name, data, v, ts, received_at, source, pending
)
SELECT 'past-' || n, 'bench/steps', jsonb_build_object('run', n, 'steps', 5), '',
    moment, moment, 'send', false
FROM chosen
"""
_WAIT = """
INSERT INTO durable_jobs_wait (
    run_id, step, kind, name, match, branch, condition, due_at, created_at
)
SELECT id, %(key)s, %(wait)s, %(name)s,
    CASE WHEN %(name)s = '' THEN '' ELSE md5(n::text) || '00000000' END, '',
    CASE WHEN %(name)s = '' THEN NULL ELSE '{"match": "data.run"}'::jsonb END,
    CASE WHEN %(name)s = '' THEN now() + interval '300 days' END, moment
FROM chosen
"""
_ANALYZED = (
    "VACUUM (ANALYZE) durable_jobs_run, durable_jobs_step, durable_jobs_event, "
    "durable_jobs_wait"
)


def finished(count: int) -> None:
    """Insert completed runs, each with five steps and its event."""
    values: dict[str, Any] = {
        "function": "bench.steps",
        "status": "completed",
        "keys": _KEYS,
    }
    values |= {"kind": "run", "step": "completed", "steps": 5}
    _fill(count, [_RUN, _STEP, _EVENT], values)


def sleeping(count: int) -> None:
    """Insert runs that sleep for 300 days."""
    values: dict[str, Any] = {
        "function": "bench.sleep",
        "status": "waiting",
        "keys": [_SLEEP],
    }
    values |= {"kind": "sleep", "step": "sleeping", "steps": 1}
    values |= {"key": _SLEEP, "wait": "sleep", "name": ""}
    _fill(count, [_RUN, _STEP, _EVENT, _WAIT], values)


def waiting(count: int) -> None:
    """Insert runs that wait for an event, each with a different match value."""
    key = ids.step_key("answer")
    values: dict[str, Any] = {
        "function": "bench.wait",
        "status": "waiting",
        "keys": [key],
    }
    values |= {"kind": "wait_for_event", "step": "waiting", "steps": 1}
    values |= {"key": key, "wait": "event", "name": "bench/answer"}
    _fill(count, [_RUN, _STEP, _EVENT, _WAIT], values)


def _fill(count: int, statements: list[str], values: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        first = _next(cursor)
        for start in range(first, first + count, BATCH):
            last = min(start + BATCH, first + count) - 1
            for statement in statements:
                chosen = {"first": start, "last": last, **values}
                cursor.execute(_CHOSEN + statement, chosen)
        cursor.execute(_ANALYZED)
        cursor.execute("SET synchronous_commit = on")


def _next(cursor: Any) -> int:
    """Return the first number that no generated run has."""
    cursor.execute("SELECT count(*) FROM durable_jobs_event WHERE id LIKE 'past-%'")
    return FIRST + int(cursor.fetchone()[0])


def due(count: int) -> float:
    """Insert runs that sleep between two steps and are due at the same time: now.

    The engine must find the steps by their keys, so Python creates the rows, first with
    a timer due tomorrow. Then one statement makes all timers due. Return the time of
    that statement on the monotonic clock.
    """
    now = clock.now()
    until = now + timedelta(days=1)
    runs = [(FIRST + number, ids.new_id()) for number in range(count)]
    _copy(Run, (_sleeper(number, run_id, now) for number, run_id in runs))
    _copy(Step, (step for _, run_id in runs for step in _slept(run_id, now, until)))
    _copy(
        Wait,
        (
            {"run_id": run_id, "step": _SLEEP, "kind": "sleep", "due_at": until}
            | {"name": "", "match": "", "branch": "", "created_at": now}
            for _, run_id in runs
        ),
    )
    with connection.cursor() as cursor:
        cursor.execute(_ANALYZED)
        cursor.execute(
            "UPDATE durable_jobs_wait SET due_at = due_at - interval '1 day'"
        )
    return clock.monotonic()


def _sleeper(number: int, run_id: uuid.UUID, now: Any) -> dict[str, Any]:
    return {
        "id": run_id,
        "function": "bench.sleep",
        "status": "waiting",
        "trigger": "bench/sleep",
        "event_meta": f'{{"id": "{run_id}", "name": "bench/sleep"}}',
        "data": f'{{"run": {number}, "seconds": 1}}',
        "queue": "default",
        "due_at": now,
        "run_order": now,
        "attempt": 0,
        "claim_count": 1,
        "crash_count": 0,
        "wake_requested": False,
        "queued_at": now,
        "started_at": now,
        **dict.fromkeys(["version", "reason", "key", "parent_step"], ""),
        **dict.fromkeys(["parent_relation", "worker"], ""),
    }


def _slept(run_id: uuid.UUID, now: Any, until: Any) -> Iterable[dict[str, Any]]:
    common = {"run_id": run_id, "attempt": 0, "started_at": now}
    yield {
        "id": ids.step_pk(run_id, _BEFORE),
        "key": _BEFORE,
        "name": "before",
        "kind": "run",
        "position": 0,
        "status": "completed",
        "output": "0",
        "due_at": None,
        "ended_at": now,
        **common,
    }
    yield {
        "id": ids.step_pk(run_id, _SLEEP),
        "key": _SLEEP,
        "name": "sleep",
        "kind": "sleep",
        "position": 1,
        "status": "sleeping",
        "output": None,
        "due_at": until,
        "ended_at": None,
        **common,
    }


def _copy(model: Any, rows: Iterable[dict[str, Any]]) -> None:
    rows = iter(rows)
    first = next(rows)
    names = ", ".join(first)
    with connection.cursor() as cursor:
        table = model._meta.db_table
        with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            copy.write_row(list(first.values()))
            for row in rows:
                copy.write_row([row[name] for name in first])


FILLINGS: dict[str, Callable[[int], None]] = {
    "finished": finished,
    "sleeping": sleeping,
    "waiting": waiting,
}
