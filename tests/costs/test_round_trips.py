"""Every statement of a run that the server counts, including BEGIN and COMMIT.

Unlike a count in the client, this count includes prepared statements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import pytest
from django.db import connection

from durable_jobs import clock, durable
from durable_jobs.definitions.function import Function
from durable_jobs.maintenance import timers
from durable_jobs.models import Run, Step, Wait
from durable_jobs.worker.queue_loop import drain_queue

pytestmark = pytest.mark.usefixtures("silence", "postgres")

MANY = 300

#: Blocks in which statements are counted, by their first word.
Count = Callable[[], AbstractContextManager[Counter[str]]]


@pytest.fixture
def counting(statistics: None) -> Count:
    """Return a context manager that fills in the server's counts of its block."""

    @contextmanager
    def block() -> Iterator[Counter[str]]:
        found: Counter[str] = Counter()
        clock.now()  # queries the database the first time
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database "
                "WHERE datname = current_database()"
            )
        yield found
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT query, calls FROM pg_stat_statements JOIN pg_database ON "
                "oid = dbid WHERE datname = current_database() "
                "AND query !~ 'pg_stat_statements|^DEALLOCATE'"
            )
            for text, calls in cursor.fetchall():
                found[text.split()[0]] += calls

    return block


def commits(found: Counter[str]) -> int:
    """Return the number of commits: one for each statement outside of a block."""
    assert found["BEGIN"] == found["COMMIT"]
    return found["COMMIT"]


def five_steps(ctx):
    return [ctx.step.run(f"step {n}", lambda n=n: n) for n in range(5)]


def sleeper(ctx):
    ctx.step.run("before", lambda: 1)
    ctx.step.sleep("nap", "1h")
    return ctx.step.run("after", lambda: 2)


def fan_out(function: Function, counting: Count) -> tuple[Run, Counter[str]]:
    """Start a function a second time; return the run and the counts."""
    function.enqueue()
    drain_queue("default")
    run = function.enqueue()
    with counting() as found:
        assert drain_queue("default") == 1
    run.refresh_from_db()
    assert run.result() == MANY
    return run, found


def make_due() -> None:
    past = clock.now() - timedelta(seconds=1)
    Wait.objects.update(due_at=past)


def test_enqueueing_is_one_statement_and_one_commit(counting: Count):
    function = durable.function(id="costs")(five_steps)
    function.enqueue()
    with counting() as found:
        function.enqueue()
    assert found == {"INSERT": 1}


def test_enqueueing_many_is_two_copies_and_one_commit(counting: Count):
    durable.function(id="costs", on=durable.Event("costs/many"))(five_steps)
    events = [durable.NewEvent("costs/many", {"n": n}) for n in range(MANY)]
    durable.send_many(events[:2])
    with counting() as found:
        durable.send_many(events[2:])
    assert Run.objects.count() == MANY
    assert found["COPY"] == 2
    assert commits(found) == 1
    assert found.total() == 4


def test_run_of_five_steps_is_a_check_a_claim_five_records_and_an_end(counting: Count):
    function = durable.function(id="costs")(five_steps)
    function.enqueue()
    drain_queue("default")
    function.enqueue()
    with counting() as found:
        assert drain_queue("default") == 1
    assert commits(found) == 0
    assert found.total() == 8


def test_suspension_is_one_statement(counting: Count):
    function = durable.function(id="costs")(sleeper)
    function.enqueue()
    drain_queue("default")
    function.enqueue()
    with counting() as found:
        assert drain_queue("default") == 1
    assert Wait.objects.count() == 2
    # A check, a claim, the step, and the sleep with all its changes.
    assert commits(found) == 0
    assert found.total() == 4


def test_end_of_sleeps_is_one_statement_for_any_number(counting: Count):
    function = durable.function(id="costs")(sleeper)
    for _ in range(20):
        function.enqueue()
    while drain_queue("default"):
        pass
    make_due()
    with counting() as found:
        assert timers.sweep() == 20
    assert Run.objects.filter(status="queued").count() == 20
    assert commits(found) == 0
    assert found.total() == 1


def test_busy_worker_ends_sleeps_itself(counting: Count):
    function = durable.function(id="costs")(sleeper)
    run = function.enqueue()
    drain_queue("default")
    make_due()
    with counting() as found:
        assert drain_queue("default", timers_first=True) == 1
    run.refresh_from_db()
    assert run.result() == 2
    # A check, the end of the sleep, a claim, all the steps, the new one, and the end.
    assert commits(found) == 0
    assert found.total() == 6


def test_run_that_slept_ends_with_five_statements(counting: Count):
    function = durable.function(id="costs")(sleeper)
    run = function.enqueue()
    drain_queue("default")
    make_due()
    timers.sweep()
    with counting() as found:
        assert drain_queue("default") == 1
    run.refresh_from_db()
    assert run.result() == 2
    # A check, a claim, all the steps, the new one, and the end.
    assert commits(found) == 0
    assert found.total() == 5


def test_resume_is_one_query_for_any_number_of_recorded_steps(counting: Count):
    @durable.function(id="costs")
    def long(ctx):
        for number in range(MANY):
            ctx.step.run(f"step {number}", lambda: None)
        ctx.step.sleep("nap", "1h")
        ctx.step.run("after", lambda: None)

    long.enqueue()
    drain_queue("default")
    make_due()
    timers.sweep()
    with counting() as found:
        assert drain_queue("default") == 1
    assert Step.objects.count() == MANY + 2
    assert found.total() == 5


def test_branches_share_commits(counting: Count):
    @durable.function(id="costs")
    def fan(ctx):
        return len(ctx.step.map("fan", lambda item: item, range(MANY)))

    _run, found = fan_out(fan, counting)
    assert found.total() < MANY


def test_branches_that_await_are_recorded_together(counting: Count):
    async def body(item):
        return item

    @durable.function(id="costs")
    async def fan(ctx):
        return len(await ctx.step.map("fan", body, range(MANY)))

    run, found = fan_out(fan, counting)
    assert Step.objects.filter(run=run).count() == MANY + 1
    # A check, a claim, a record of all, the decision, the end.
    assert found.total() == 5
