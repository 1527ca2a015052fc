"""Waiting for a run and getting its result."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit


def test_wait_returns_the_finished_run(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: ctx.event.data["n"] + 1)
    run = look.enqueue({"n": 1})
    finished = run.wait(timeout=10)
    assert finished is run
    assert (run.status, run.output) == ("completed", 2)
    assert run.result() == 2
    assert run.ended_at == run.started_at == durable_kit.now()
    assert run.wait() is run


def test_result_may_be_none(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    assert look.enqueue().wait(timeout=10).result() is None


def test_run_that_has_not_ended_has_no_result(durable_kit: Kit) -> None:
    @durable.function(id="nap")
    def nap(ctx):
        ctx.step.sleep("long", "1d")

    run = nap.enqueue()
    with pytest.raises(durable.RunNotFinished, match="is queued"):
        run.result()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    with pytest.raises(durable.RunNotFinished, match="is waiting") as caught:
        run.result()
    assert caught.value.run_id == str(run.pk)


@pytest.mark.parametrize("timeout", [None, 0, 3600.0])
def test_wait_with_a_fixed_clock_ends_at_once(
    durable_kit: Kit, timeout: float | None
) -> None:
    @durable.function(id="nap")
    def nap(ctx):
        ctx.step.sleep("long", "1d")

    run = nap.enqueue()
    with pytest.raises(durable.RunNotFinished, match="is waiting") as caught:
        run.wait(timeout=timeout)
    assert caught.value.run_id == str(run.pk)
    durable_kit.advance("1d")
    assert run.wait(timeout=timeout).result() is None


def test_failed_run_raises_its_error(durable_kit: Kit) -> None:
    @durable.function(id="shop.fail", retries=0)
    def fail(ctx):
        raise LookupError("no such order")

    run = fail.enqueue().wait(timeout=10)
    with pytest.raises(durable.RunFailed) as caught:
        run.result()
    assert caught.value.run_id == str(run.pk)
    assert caught.value.error == run.error
    assert run.error["type"] == "LookupError"
    assert run.error["message"] == "no such order"
    assert "raise LookupError" in run.error["traceback"]
    assert "shop.fail failed: LookupError: no such order" in str(caught.value)


def test_cancelled_run_raises_why(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    run = look.enqueue()
    run.cancel("the customer left")
    with pytest.raises(durable.RunCancelled, match="the customer left") as caught:
        run.wait(timeout=10).result()
    assert caught.value.run_id == str(run.pk)


def test_runs_can_be_awaited_in_any_order(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: ctx.event.data["n"])
    runs = [look.enqueue({"n": n}) for n in range(3)]
    assert [run.wait(timeout=10).result() for run in reversed(runs)] == [2, 1, 0]
    assert Run.objects.live().count() == 0


def test_errors_of_runs_are_durable_errors() -> None:
    for kind in (durable.RunFailed, durable.RunCancelled, durable.RunNotFinished):
        assert issubclass(kind, durable.DurableError)


def test_result_that_refers_to_a_deleted_row_raises_as_in_replay(
    durable_kit: Kit,
) -> None:
    user = User.objects.create(username="ann")

    @durable.function(id="find")
    def find(ctx):
        found = ctx.step.run("user", User.objects.get, pk=user.pk)
        ctx.step.sleep("nap", "1h")
        return {"users": [found]}

    raised = []

    @durable.function(id="replay")
    def replay(ctx):
        try:
            ctx.step.run("user", User.objects.get, pk=user.pk)
        except User.DoesNotExist as error:
            raised.append(type(error))
            raise
        ctx.step.sleep("nap", "2h")

    run, replayed = find.enqueue(), replay.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == {"users": [user]}
    user.delete()
    run.refresh_from_db()
    with pytest.raises(User.DoesNotExist):
        run.result()
    durable_kit.advance("1h")
    assert raised
    replayed.refresh_from_db()
    assert replayed.status != "completed"


def test_result_that_looks_like_a_reference_is_data(durable_kit: Kit) -> None:
    data = {"$durable": "model", "value": ["auth.user", 1, "default"]}
    look = durable.function(id="look")(lambda ctx: {"kept": [data]})
    run = look.enqueue().wait(timeout=10)
    run.refresh_from_db()
    assert run.result() == {"kept": [data]}
