"""A run whose function the code no longer has is parked, and loses nothing."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


def deployed(kit: Kit, calls: list[str]) -> durable.Function:
    """Declare the function, as code that has it does."""

    @durable.function(id="shop.old", on_complete=lambda ctx: calls.append("told"))
    def old(ctx):
        ctx.step.run("one", lambda: calls.append("one"))
        ctx.step.sleep("night", "1h")
        ctx.step.run("two", lambda: calls.append("two"))
        return "done"

    return old


def test_it_is_parked_and_goes_on_when_the_code_is_back() -> None:
    calls: list[str] = []
    with Kit() as kit:
        run = deployed(kit, calls).enqueue()
        kit.run_until_idle()
        assert calls == ["one"]
        now = kit.now()
    with Kit(now=now) as kit:
        kit.advance("2h")
        run.refresh_from_db()
        assert run.status == "paused"
        assert "'shop.old'" in run.reason
        assert "Resume" in run.reason
        assert (run.lease_token, run.crashes) == (None, 0)
        kit.advance("2d")
        run.refresh_from_db()
        assert run.status == "paused"
        now = kit.now()
    with Kit(now=now) as kit:
        deployed(kit, calls)
        assert run.resume() is True
        kit.run_until_idle()
        run.refresh_from_db()
        assert run.result() == "done"
        assert calls == ["one", "two", "told"]


def test_a_run_that_had_not_begun_is_parked_too() -> None:
    with Kit() as kit:
        run = deployed(kit, []).enqueue()
        now = kit.now()
    with Kit(now=now) as kit:
        kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "paused"


def test_a_parked_run_can_be_cancelled() -> None:
    with Kit() as kit:
        run = deployed(kit, []).enqueue()
        now = kit.now()
    with Kit(now=now) as kit:
        kit.run_until_idle()
        assert run.cancel("not needed any more") is True
        kit.run_until_idle()
        run.refresh_from_db()
        assert run.status == "cancelled"


def test_a_run_that_is_resumed_too_early_is_parked_again() -> None:
    with Kit() as kit:
        run = deployed(kit, []).enqueue()
        now = kit.now()
    with Kit(now=now) as kit:
        kit.run_until_idle()
        for _ in range(3):
            assert run.resume() is True
            kit.run_until_idle()
            run.refresh_from_db()
            assert run.status == "paused"


def test_a_child_of_an_unknown_function_is_refused_by_name(durable_kit: Kit) -> None:
    @durable.function(id="parent", retries=0)
    def parent(ctx):
        ctx.step.invoke("call", "shop.gone")

    run = parent.enqueue().wait(timeout=10)
    assert run.status == "failed"
    assert run.error["type"] == "UnknownFunction"
    assert "'shop.gone'" in run.error["message"]
    assert Run.objects.count() == 1


def test_other_runs_are_not_held_up() -> None:
    with Kit() as kit:
        deployed(kit, []).enqueue()
        now = kit.now()
    with Kit(now=now) as kit:
        look = durable.function(id="look")(lambda ctx: 1)
        runs = [look.enqueue() for _ in range(3)]
        kit.run_until_idle()
        for run in runs:
            run.refresh_from_db()
            assert run.status == "completed"
