"""Very many timers are due at once: each fires once, and other runs need not wait."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from django.db import connection

from durable_jobs import clock, ids
from durable_jobs.models import Run, Step, Wait
from tests.lab import durable as functions
from tests.lab import journal
from tests.lab.processes import Lab, until
from tests.lab.watching import ended

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

#: A hundred thousand take about a minute to create and to fire.
COUNT = int(os.environ.get("LAB_TIMERS", "10000"))

_RUNS = f"""
INSERT INTO {Run._meta.db_table} (id, function, version, status, reason, trigger, key,
    parent_step, parent_relation, queue, due_at, run_order, worker, attempt,
    claim_count, crash_count, wake_requested, queued_at, started_at)
SELECT gen_random_uuid(), 'lab.sleeper', '', 'waiting', '', '', '', '', '', 'asleep',
    now(), now(), '', 0, 1, 0, false, now(), now()
FROM generate_series(1, %s)
"""  # noqa: S608  # our own table
_WAITS = f"""
INSERT INTO {Wait._meta.db_table} (run_id, step, kind, name, match, branch, due_at,
    created_at)
SELECT id, %s, 'sleep', '', '', '', %s, now() FROM {Run._meta.db_table}
"""  # noqa: S608  # our own tables


def asleep(count: int) -> None:
    """Insert sleeping runs of an unserved queue, due a moment ago."""
    due, key = clock.now() - timedelta(seconds=1), ids.step_key("nap")
    with connection.cursor() as cursor:
        cursor.execute(_RUNS, [count])
        cursor.execute(_WAITS, [key, due])
    steps = [
        Step(
            id=ids.step_pk(pk, key),
            run_id=pk,
            key=key,
            name="nap",
            kind="sleep",
            status="sleeping",
            due_at=due,
            started_at=due,
        )
        for pk in Run.objects.values_list("pk", flat=True)
    ]
    Step.objects.bulk_create(steps, batch_size=10_000)


def test_due_timers_all_fire_once_while_other_queues_start(lab: Lab) -> None:
    journal.remove()  # the journal would record each of them
    asleep(COUNT)
    waits = Wait.objects.filter(kind="sleep")
    # So slow that one sweep cannot end them all, on any machine.
    lab.worker("-P", "solo", DURABLE_JOBS_FAILPOINTS="timers.read=sleep(0.5)")
    lab.beat()
    until(lambda: waits.count() < COUNT, "the first timers to fire", lab)
    meanwhile = 0
    while waits.exists():
        run = functions.five_steps.enqueue()
        until(lambda run=run: ended(run), "a run of another queue to end", lab)
        meanwhile += waits.exists()
    assert meanwhile >= 3, "other runs had to wait"
    woken = Run.objects.filter(queue="asleep")
    assert (
        woken.filter(status="queued", wake_requested=True, claim_count=1).count()
        == COUNT
    )
    assert Step.objects.filter(name="nap", status="completed").count() == COUNT
