"""The budget of design.md: the number of PostgreSQL statements of a run."""

from __future__ import annotations

import contextlib
import logging

import pytest
from django.db import connection

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.store import steps
from durable_jobs.worker.queue_loop import drain_queue
from tests.costs.conftest import Watch

pytestmark = pytest.mark.usefixtures("silence", "postgres")

STEPS = 5

logger = logging.getLogger("project.tests")


def five_steps(ctx):
    return [ctx.step.run(f"step {n}", lambda n=n: n) for n in range(STEPS)]


def test_start_of_a_run_is_one_statement(watch: Watch):
    function = durable.function(id="costs")(five_steps)
    with watch() as texts:
        function.enqueue({"order_id": 7})
    assert [text.split()[0] for text in texts] == ["INSERT"]


def test_new_run_is_a_claim_its_steps_its_end_and_a_check(watch: Watch):
    function = durable.function(id="costs")(five_steps)
    run = function.enqueue()
    with watch() as texts:
        assert drain_queue("default") == 1
    run.refresh_from_db()
    assert run.result() == [0, 1, 2, 3, 4]
    assert len(texts) == STEPS + 3
    # No check before the run has begun: it waits for nothing else.
    assert "lease_token" in texts[0]
    assert "COALESCE" in texts[-1]


def test_inputs_and_log_lines_cost_no_statement(watch: Watch):
    def body(order, *, fail=None):
        logger.info("order %s", order)
        if fail:
            fail.pop()
            raise OSError

    def talking(ctx):
        for n in range(STEPS - 1):
            ctx.step.run(f"step {n}", body, {"id": n})
        with contextlib.suppress(durable.StepFailed):
            ctx.step.run("fails", body, {"id": 7}, fail=[1], retries=0)

    run = durable.function(id="costs")(talking).enqueue()
    with watch() as texts:
        assert drain_queue("default") == 1
    rows = run.steps.values_list("input", "logs")
    assert all(given and logs for given, logs in rows)
    assert len(rows) == STEPS
    assert len(texts) == STEPS + 3


@pytest.mark.parametrize("kind", ["run", "atomic"])
def test_inputs_and_logs_of_a_failed_attempt_cost_no_statement(watch: Watch, kind):
    def statements(body, *args):
        def flaky(ctx):
            getattr(ctx.step, kind)("try", body, *args)

        run = durable.function(id=f"costs.{body.__name__}")(flaky).enqueue()
        with watch() as texts:
            drain_queue("default")
        assert bool(run.attempts.get().logs) is bool(args)
        return [text.split()[0] for text in texts]

    def silent():
        raise OSError

    def talking(order):
        logger.info("order %s", order)
        raise OSError

    assert statements(talking, 7) == statements(silent)


def test_replay_does_not_read_inputs_and_logs(watch: Watch):
    run = durable.function(id="costs")(five_steps).enqueue()
    with watch() as texts:
        steps.load(run.pk)
    (load,) = texts
    assert "output" in load
    assert "input" not in load
    assert "logs" not in load


def test_runs_claimed_together_share_the_check_and_the_claim(watch: Watch):
    function = durable.function(id="costs")(five_steps)
    for _ in range(4):
        function.enqueue()
    with watch() as texts:
        assert drain_queue("default") == 4
    assert len(texts) == 2 + 4 * (STEPS + 1)


def test_claim_does_not_wait_for_the_disk_and_later_writes_do(watch: Watch):
    seen = []

    def look(ctx):
        with connection.cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            seen.append(cursor.fetchone()[0])

    durable.function(id="costs")(look).enqueue()
    with watch() as texts:
        drain_queue("default")
    [claim] = [text for text in texts if "SKIP LOCKED" in text]
    assert "set_config('synchronous_commit', 'off', true)" in claim
    assert seen == ["on"]


def test_check_of_an_empty_queue_is_two_statements(watch: Watch):
    with watch() as texts:
        assert drain_queue("default") == 0
    assert len(texts) == 2


def test_work_that_arrives_during_a_batch_has_its_own_message():
    function = durable.function(id="costs")(five_steps)

    def starting(ctx):
        ctx.step.run("start another", lambda: str(function.enqueue().pk))

    durable.function(id="starting")(starting).enqueue()
    assert drain_queue("default") == 1
    assert drain_queue("default") == 1
    assert not Run.objects.live().exists()
