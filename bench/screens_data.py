"""The data set of ``bench.screens``: the runs of a busy month.

SQL statements generate the rows in the server: thirty functions, of which a few have
most runs; all statuses, mostly completed; keys, subjects, events and errors. The newest
runs have steps, and one run has a thousand steps.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from typing import Any

from django.db import connection

from durable_jobs import clock, ids
from durable_jobs.models import Backlog, Limit, Pause, Run, Schedule, Slot, Step, Wait

#: Runs of one statement.
BATCH = 250_000
#: The part of the runs that have steps: the newest.
WITH_STEPS = 0.1
MANY_STEPS = 1000
#: The range of numbers that contains the run with ``MANY_STEPS`` steps.
LARGE = (2001, 2100)
DAYS = 30

#: Ids that sort by time, like the ids of the engine. Number 1 is the newest run.
_CHOSEN = """
WITH chosen AS MATERIALIZED (
    SELECT n, moment, of, other, (
        lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0')
        || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15)
    )::uuid AS id
    FROM (
        SELECT n, %(now)s - n * interval '{days} days' / %(count)s AS moment,
            mod(abs(hashint8(n)::bigint), 100000) AS of,
            mod(abs(hashint8(-n)::bigint), 100000) AS other
        FROM generate_series(%(last)s::bigint, %(first)s::bigint, -1) AS n
    ) AS numbered
), runs AS MATERIALIZED (
    SELECT *, CASE
        WHEN n <= 1000 AND of < 60000 THEN 'queued'
        WHEN n <= 2000 AND of < 4000 THEN 'running'
        WHEN of < 300 THEN 'waiting'
        WHEN of < 310 THEN 'paused'
        WHEN of < 3500 THEN 'failed'
        WHEN of < 4500 THEN 'cancelled'
        WHEN of < 5000 THEN 'skipped'
        ELSE 'completed'
    END AS status
    FROM chosen
)
""".replace("{days}", str(DAYS))
_RUN = """
INSERT INTO durable_jobs_run (
    id, function, version, status, reason, trigger, key, event_id, event_meta, data,
    output, error, parent_id, parent_step, parent_relation, queue, backlog, due_at,
    run_order, lease_token, lease_until, worker, attempt, claim_count, crash_count,
    wake_requested, queued_at, started_at, ended_at
)
SELECT id, 'shop.function_' || floor(30 * power(other / 100000.0, 3)),
    'v' || n * 5 / (%(count)s + 1), status,
    CASE WHEN status = 'skipped' THEN 'Another run has the key.' ELSE '' END,
    'shop/event.' || mod(n, 12),
    CASE WHEN mod(n, 20) = 0 THEN 'order-' || n ELSE '' END,
    'e-' || n, jsonb_build_object('id', 'e-' || n, 'name', 'shop/event', 'ts', moment),
    jsonb_build_object(
        'order', jsonb_build_object('id', mod(n, 50000), 'total', of / 7.0),
        'customer', 'customer-' || mod(n, 9000), 'note', repeat(md5(n::text), 8)),
    CASE WHEN status = 'completed' THEN jsonb_build_object('ok', true, 'n', n) END,
    CASE WHEN status = 'failed' THEN jsonb_build_object(
        'type',
        (array['ValueError', 'Timeout', 'HTTPError', 'KeyError'])[1 + mod(n, 4)],
        'message', 'order ' || n || ' could not be done',
        'traceback', repeat('  File "shop/work.py", line 7' || chr(10), 12)) END,
    CASE WHEN mod(n, 50) = 0 THEN lag(id) OVER () END, '', '',
    CASE WHEN mod(n, 9) = 0 THEN 'slow' ELSE 'default' END,
    CASE WHEN status = 'queued' AND mod(n, 3) = 0 THEN 1 END, moment, moment,
    CASE WHEN status = 'running' THEN id END,
    CASE WHEN status = 'running' THEN now() + interval '1 day' END,
    CASE WHEN status IN ('queued', 'skipped') THEN '' ELSE 'host:' || mod(n, 6) END,
    0, 1, 0, false, moment,
    CASE WHEN status NOT IN ('queued', 'skipped') THEN moment + interval '2 s' END,
    CASE WHEN status NOT IN ('queued', 'running', 'waiting', 'paused')
        THEN moment + interval '2 s' + other * interval '1 ms' END
FROM runs
"""
_SUBJECT = """
INSERT INTO durable_jobs_subject (run_id, model, object_pk)
SELECT id, 'shop.order', mod(n, 50000) FROM runs WHERE mod(n, 10) = 0
"""
_EVENT = """
INSERT INTO durable_jobs_event (id, name, data, v, ts, received_at, source, pending)
SELECT 'e-' || n, 'shop/event.' || mod(n, 12),
    jsonb_build_object('order', mod(n, 50000)), '',
    moment, moment, 'send', false
FROM runs WHERE n <= %(count)s / 2
"""
_STEP = """
INSERT INTO durable_jobs_step (
    id, run_id, key, name, kind, position, status, attempt, output, error, started_at,
    ended_at
)
SELECT (substr(id::text, 1, 18) || substr(md5(id::text || position), 1, 4)
        || substr(md5(id::text || position), 5, 12))::uuid,
    id, (%(keys)s::text[])[position + 1], 'step ' || position, 'run', position,
    CASE WHEN status = 'failed' AND position = 4 THEN 'failed' ELSE 'completed' END, 0,
    jsonb_build_object('position', position)::text,
    CASE WHEN status = 'failed' AND position = 4
        THEN '{"type": "ValueError", "message": "no", "traceback": ""}'::jsonb END,
    moment + (2 + position) * interval '1 s', moment + (3 + position) * interval '1 s'
FROM runs, generate_series(0, CASE WHEN n = %(large)s THEN %(many)s - 1 ELSE 4 END)
    AS position
WHERE n <= %(stepped)s AND status NOT IN ('queued', 'skipped')
"""
_STATEMENTS = (_RUN, _SUBJECT, _EVENT, _STEP)
_TABLES = (
    "run",
    "subject",
    "event",
    "step",
    "wait",
    "schedule",
    "limit",
    "slot",
    "backlog",
)
#: The numbers of other rows.
APPROVALS, SCHEDULES, LIMITS = 500, 200, 1000


def fill(count: int) -> None:
    """Insert ``count`` runs. The newest is from now, the oldest is a month old."""
    keys = [ids.step_key(f"step {number}") for number in range(MANY_STEPS)]
    known: dict[str, Any] = {
        "count": count,
        "keys": keys,
        "large": _large(),
        "many": MANY_STEPS,
    }
    known["now"] = clock.now()  # all rows of a run contain the same id
    known["stepped"] = max(int(count * WITH_STEPS), LARGE[1])
    began = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        for last in range(count, 0, -BATCH):
            first = max(last - BATCH, 0) + 1
            for statement in _STATEMENTS:
                chosen = {"first": first, "last": last, **known}
                cursor.execute(_CHOSEN + statement, chosen)
            took = time.monotonic() - began
            print(f"{count - first + 1:,} runs, {took:.0f} s", file=sys.stderr)
        _add_other_rows()
        cursor.execute("SET synchronous_commit = on")
        for name in _TABLES:
            cursor.execute(f"VACUUM (ANALYZE) durable_jobs_{name}")


def _add_other_rows() -> None:
    """Insert approvals, schedules, limits with slots and backlogs, and a pause."""
    now = clock.now()
    waiting = Run.objects.filter(status="waiting").order_by("-pk").only("pk")
    for number, run in enumerate(waiting[:APPROVALS]):
        key = ids.step_key("approve")
        condition = {"title": f"Refund {number}", "form": None}
        values: dict[str, Any] = {"run_id": run.pk, "kind": "approval"}
        Step.objects.create(
            id=ids.step_pk(run.pk, key),
            key=key,
            name="approve",
            status="waiting",
            **{**values, "kind": "approve"},
        )
        name = "auth.change_user" if number % 2 else "auth.view_user"
        Wait.objects.create(
            step=key, name=name, condition=condition, created_at=now, **values
        )
    Schedule.objects.bulk_create(
        Schedule(
            function=f"shop.function_{number % 30}",
            name=f"report {number}",
            cron="0 7 * * *",
            tz="Europe/Berlin",
            next_occurrence=now + timedelta(hours=number),
            due_at=now + timedelta(hours=number),
            created_at=now,
        )
        for number in range(SCHEDULES)
    )
    limit_rows = Limit.objects.bulk_create(
        Limit(
            name=f"limit {number}",
            control="concurrency",
            function=f"shop.function_{number % 30}",
            key=f'"tenant {number}"',
            used_at=now,
        )
        for number in range(LIMITS)
    )
    running = Run.objects.filter(status="running").order_by("-pk").only("pk")
    held = zip(running[:LIMITS], limit_rows, strict=False)
    Slot.objects.bulk_create(
        Slot(limit=limit_row, run=run, steps=True, since=now) for run, limit_row in held
    )
    Backlog.objects.bulk_create(
        Backlog(
            name=f"backlog {limit_row.pk}",
            function=limit_row.function,
            queue="default",
            keys={"concurrency:0": f"tenant {limit_row.pk}"},
            for_new_runs=True,
            eligible_at=now,
            blocked_on=limit_row,
        )
        for limit_row in limit_rows
    )
    Pause.objects.create(kind="function", name="shop.function_29", paused_at=now)


def _large() -> int:
    """Return the number of the run with a thousand steps: a completed run."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n FROM generate_series(%s, %s) AS n "
            "WHERE mod(abs(hashint8(n)::bigint), 100000) > 5000 LIMIT 1",
            LARGE,
        )
        return int(cursor.fetchone()[0])


def one(condition: str) -> Any:
    """Return the id of the newest run that matches an SQL condition."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT id FROM durable_jobs_run WHERE {condition} "  # noqa: S608  # our own
            "ORDER BY id DESC LIMIT 1"
        )
        row = cursor.fetchone()
    return row[0] if row else None
