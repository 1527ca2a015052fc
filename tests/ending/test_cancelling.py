"""Cancelling a run wins or loses against the run's own end, exactly once (I9).

The guard is the expected old status in the WHERE of every end. Without it, both the
cancellation and the completion would count.
"""

from __future__ import annotations

import pytest
from django.db import connection

from durable_jobs import durable
from durable_jobs.models import Run, Step, Wait
from durable_jobs.testing import Kit
from tests.lab.threads import together


def told(ctx):
    """Return how the run ended."""
    return ctx.event.data["status"]


@pytest.fixture
def nap(durable_kit: Kit) -> durable.Function:
    """Declare a function that sleeps between two steps."""

    @durable.function(id="nap", on_cancel=told, on_complete=told, on_failure=told)
    def nap(ctx):
        ctx.step.run("before", lambda: None)
        ctx.step.sleep("long", "1d")
        ctx.step.run("after", lambda: None)
        return "rested"

    return nap


def test_queued_run_never_starts(durable_kit: Kit, nap: durable.Function) -> None:
    run = nap.enqueue()
    assert run.cancel(reason="changed my mind") is True
    assert (run.status, run.reason) == ("cancelled", "changed my mind")
    assert run.ended_at == durable_kit.now()
    durable_kit.advance("2d")
    assert not Step.objects.filter(run=run).exists()
    assert Run.objects.get(parent=run).result() == "cancelled"


def test_sleeping_run_does_not_wake(durable_kit: Kit, nap: durable.Function) -> None:
    run = nap.enqueue()
    durable_kit.run_until_idle()
    assert run.cancel() is True
    durable_kit.advance("2d")
    run.refresh_from_db()
    assert (run.status, run.reason) == ("cancelled", "")
    assert not Wait.objects.exists()
    steps = run.steps.order_by("position").values_list("name", "status")
    assert list(steps) == [("before", "completed"), ("long", "cancelled")]


def test_paused_run_can_be_cancelled(durable_kit: Kit, nap: durable.Function) -> None:
    run = nap.enqueue()
    durable_kit.run_until_idle()
    run.pause()
    assert run.cancel() is True
    assert run.resume() is False
    durable_kit.advance("2d")
    run.refresh_from_db()
    assert run.status == "cancelled"


def test_second_cancel_returns_false(durable_kit: Kit, nap: durable.Function) -> None:
    run = nap.enqueue()
    other = Run.objects.get(pk=run.pk)
    assert run.cancel("first") is True
    assert other.cancel("second") is False
    assert other.reason == "first"
    durable_kit.run_until_idle()
    assert Run.objects.filter(parent=run).count() == 1


def test_completed_run_stays_completed(durable_kit: Kit, nap: durable.Function) -> None:
    run = nap.enqueue()
    durable_kit.advance("2d")
    assert run.cancel("too late") is False
    assert (run.status, run.reason) == ("completed", "")
    assert run.result() == "rested"
    durable_kit.run_until_idle()
    assert Run.objects.get(parent=run).function == "nap:on_complete"


@pytest.mark.exact("it counts the answers of a body")
@pytest.mark.parametrize("kind", ["run", "atomic", "body"])
def test_cancelled_from_inside_a_run_is_cancelled(durable_kit: Kit, kind: str) -> None:
    answers: list[bool] = []

    @durable.function(id="inside", on_cancel=told, on_complete=told)
    def inside(ctx):
        def stop() -> str:
            answers.append(Run.objects.get(pk=ctx.run_id).cancel("by itself"))
            return "recorded?"

        if kind == "run":
            ctx.step.run("stop", stop)
        elif kind == "atomic":
            ctx.step.atomic("stop", stop)
        else:
            stop()
        ctx.step.run("after", lambda: None)
        return "completed?"

    run = inside.enqueue()
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert answers == [True]
    assert (run.status, run.output, run.reason) == ("cancelled", None, "by itself")
    # The atomic step's writes and record are committed; nothing more is recorded.
    recorded = run.steps.filter(status="completed").values_list("name", flat=True)
    assert list(recorded) == (["stop"] if kind == "atomic" else [])
    assert Run.objects.get(parent=run).result() == "cancelled"


def test_cancel_during_the_last_step_ends_the_run_once(durable_kit: Kit) -> None:
    @durable.function(id="last", on_cancel=told, on_complete=told)
    def last(ctx):
        ctx.step.run("work", lambda: None)
        assert Run.objects.get(pk=ctx.run_id).cancel() is True
        return "completed?"

    run = last.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert (run.status, run.output) == ("cancelled", None)
    assert [child.result() for child in run.children.all()] == ["cancelled"]


def test_cancel_of_a_queryset_cancels_many_runs(
    durable_kit: Kit, nap: durable.Function
) -> None:
    done = durable.function(id="done")(lambda ctx: 1).enqueue()
    durable_kit.run_until_idle()
    for _ in range(3):
        nap.enqueue()
    assert Run.objects.cancel("closing time") == 3
    assert Run.objects.filter(status="cancelled", reason="closing time").count() == 3
    assert Run.objects.filter(function="nap").cancel() == 0
    done.refresh_from_db()
    assert done.status == "completed"


def test_cancelled_run_has_no_error(durable_kit: Kit, nap: durable.Function) -> None:
    run = nap.enqueue()
    run.cancel("enough")
    assert run.error is None
    with pytest.raises(durable.RunCancelled, match="enough"):
        run.result()


@pytest.mark.django_db(transaction=True)
def test_concurrent_ends_of_a_run_have_one_winner(
    durable_kit: Kit, nap: durable.Function
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("threads do not share a database in memory")
    runs = [nap.enqueue() for _ in range(8)]
    durable_kit.run_until_idle()
    for run in runs:
        answers = together(*[lambda run=run: Run.objects.get(pk=run.pk).cancel()] * 4)
        assert sorted(answers) == [False, False, False, True]
    durable_kit.run_until_idle()
    assert Run.objects.filter(function="nap:on_cancel").count() == 8
