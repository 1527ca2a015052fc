"""Prepared statements: planned once, and avoided where the server refuses them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from durable_jobs import clock, durable
from durable_jobs.models import Run
from durable_jobs.store.postgres import prepared
from durable_jobs.worker.queue_loop import drain_queue

pytestmark = pytest.mark.usefixtures("silence", "postgres", "afresh")

ANSWER = "SELECT %s::int + 1"


@pytest.fixture
def afresh() -> Iterator[None]:
    """Clear the record of refusals before and after the test."""
    connection.close()
    prepared._refused.clear()
    yield
    prepared._refused.clear()
    connection.close()


def known() -> list[str]:
    """Return the statements that are prepared on this connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return [row[0] for row in cursor.fetchall()]


def two_steps(ctx):
    return [ctx.step.run("one", lambda: 1), ctx.step.run("two", lambda: 2)]


def test_checkpoints_and_the_end_are_prepared_and_no_project_statement_is():
    durable.function(id="costs")(two_steps).enqueue()
    drain_queue("default")
    texts = known()
    assert texts
    assert all("durable_jobs_" in text for text in texts)
    assert connection.connection.prepare_threshold is None


def test_statement_is_prepared_once_for_many_calls():
    for number in range(10):
        assert prepared.fetch(ANSWER, [number]) == [(number + 1,)]
    assert len(known()) == 1


def test_plans_are_renewed_and_old_ones_dropped(monkeypatch: pytest.MonkeyPatch):
    moment = [0.0]
    monkeypatch.setattr(clock, "monotonic", lambda: moment[0])
    for _ in range(3 * prepared.MAX_PREPARED):
        assert prepared.fetch(ANSWER, [1]) == [(2,)]
        moment[0] += prepared.REPLAN
    assert 1 < len(known()) <= prepared.MAX_PREPARED + 1


def test_pool_without_prepared_statements_works_by_setting(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)
    run = durable.function(id="costs")(two_steps).enqueue()
    drain_queue("default")
    run.refresh_from_db()
    assert run.result() == [1, 2]
    assert known() == []


def forget_behind_the_drivers_back() -> None:
    """Switch the server connection, as a connection pool does."""
    connection.connection.pgconn.exec_(b"DEALLOCATE ALL")


def test_server_that_refuses_to_prepare_gets_plain_statements(caplog: Any):
    prepared.fetch(ANSWER, [1])
    forget_behind_the_drivers_back()
    assert prepared.fetch(ANSWER, [1]) == [(2,)]
    assert "DISABLE_SERVER_SIDE_CURSORS" in caplog.text
    assert prepared.fetch(ANSWER, [2]) == [(3,)]
    assert known() == []


def test_refusal_in_the_middle_of_a_run_changes_nothing():
    def forgetting(ctx):
        ctx.step.run("one", lambda: 1)
        forget_behind_the_drivers_back()
        ctx.step.run("two", lambda: 2)
        return Run.objects.get(pk=ctx.run_id).claim_count

    run = durable.function(id="costs")(forgetting).enqueue()
    drain_queue("default")
    run.refresh_from_db()
    assert run.result() == 1
    assert run.steps.count() == 2


def test_refusal_inside_a_transaction_is_an_error_and_the_last_one():
    prepared.fetch(ANSWER, [1])
    forget_behind_the_drivers_back()
    with pytest.raises(DatabaseError), transaction.atomic():
        prepared.fetch(ANSWER, [1])
    with transaction.atomic():
        assert prepared.fetch(ANSWER, [1]) == [(2,)]
