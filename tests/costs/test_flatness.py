"""Old and waiting runs cost nothing: statements read no more blocks because of them.

The server counts the blocks that each statement reads. Time is not measured.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from django.db import connection

from bench import filling
from durable_jobs import clock, durable
from durable_jobs.events import routing
from durable_jobs.maintenance import tick
from durable_jobs.models import Run, Wait
from durable_jobs.store import leases
from durable_jobs.store.postgres import prepared
from durable_jobs.worker.background import background_thread
from durable_jobs.worker.queue_loop import drain_queue

pytestmark = [
    pytest.mark.usefixtures("silence", "postgres", "statistics"),
    pytest.mark.timeout(900),
]

#: The numbers of finished, sleeping and waiting runs, at first and later.
FEW, MANY = 200, int(os.environ.get("LAB_ROWS", "20000"))
#: Enough calls for the server to settle on a generic plan.
TIMES = 8
#: Blocks that a statement may read more because its indexes have grown in height: one
#: for each index. The query of the tick uses some fifteen.
HEIGHT = 20


def steps(ctx):
    return [ctx.step.run(f"step {n}", lambda n=n: n) for n in range(5)]


def sleeper(ctx):
    ctx.step.sleep("sleep", "1h")
    return ctx.step.run("after", lambda: 2)


def waiter(ctx):
    event = ctx.step.wait_for_event("answer", "bench/answer", match="data.run")
    return event.data["run"]


def live() -> None:
    """Let runs of all kinds begin, wait, resume and end, in a worker's statements."""
    started = durable.function(id="bench.steps", on=durable.Event("bench/steps"))
    started(steps)
    sleeps = durable.function(id="bench.sleep")(sleeper)
    waits = durable.function(id="bench.wait")(waiter)
    for number in range(TIMES):
        durable.send("bench/steps", {"run": number})
        woken, waiting = sleeps.enqueue(), waits.enqueue({"run": number})
        drain_queue("default")
        past = clock.now() - timedelta(seconds=1)
        Wait.objects.filter(run=woken).update(due_at=past)
        durable.send("bench/answer", {"run": number})
        drain_queue("default")
        routing.route_pending()
        tick.pending()
        tick.renotify()
        leases.expired(10)
        for run in (woken, waiting):
            run.refresh_from_db()
            assert run.status == "completed"


def read() -> dict[str, float]:
    """Return the blocks that each statement of ``live`` reads per call."""
    background_thread().stop()
    connection.close()  # plans that were made for other sizes
    prepared._refused.clear()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_statements_reset(0, 0, 0)")
    live()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT query, (shared_blks_hit + shared_blks_read)::float / calls "
            "FROM pg_stat_statements JOIN pg_database ON oid = dbid "
            "WHERE datname = current_database() AND calls >= %s",
            [TIMES],
        )
        return {text.partition("--")[0]: blocks for text, blocks in cursor.fetchall()}


def test_statements_read_no_more_for_old_or_waiting_runs() -> None:
    _fill(FEW)
    few = read()
    _fill(MANY)
    many = read()
    assert Run.objects.count() >= 3 * MANY
    assert len(few.keys() & many.keys()) > 10
    grown = {
        text: (few[text], blocks)
        for text, blocks in many.items()
        if text in few and blocks > few[text] + HEIGHT
    }
    assert grown == {}


def _fill(count: int) -> None:
    filling.finished(count)
    filling.sleeping(count)
    filling.waiting(count)
