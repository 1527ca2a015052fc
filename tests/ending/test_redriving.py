"""Redriving: the same run continues where it failed, with fresh retries."""

from __future__ import annotations

from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit


class Bank:
    """A bank that accepts or refuses charges."""

    def __init__(self) -> None:
        self.open = False
        self.calls = 0

    def charge(self, *args: Any) -> str:
        """Charge, or fail if the bank is closed."""
        self.calls += 1
        if not self.open:
            raise ConnectionError("the bank is closed")
        return "charged"


@pytest.fixture
def bank() -> Bank:
    """Return a closed bank."""
    return Bank()


def test_redrive_continues_from_the_failed_step(durable_kit: Kit, bank: Bank) -> None:
    calls: list[str] = []

    @durable.function(id="pay", retries=2, backoff=durable.Backoff.fixed("1m"))
    def pay(ctx):
        ctx.step.run("reserve", lambda: calls.append("reserve"))
        charged = ctx.step.run("charge", bank.charge)
        ctx.step.run("ship", lambda: calls.append("ship"))
        return charged

    run = pay.enqueue()
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert (run.status, bank.calls) == ("failed", 3)
    started, queued = run.started_at, run.queued_at

    assert run.redrive() is True
    assert (run.status, run.error, run.ended_at) == ("queued", None, None)
    durable_kit.advance("1h")
    run.refresh_from_db()
    # Fresh retries: three more attempts.
    assert (run.status, bank.calls) == ("failed", 6)

    bank.open = True
    assert run.redrive() is True
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "charged"
    assert calls == ["reserve", "ship"]
    assert (run.started_at, run.queued_at) == (started, queued)
    assert Run.objects.count() == 1


def test_body_that_failed_is_called_again(durable_kit: Kit, bank: Bank) -> None:
    calls: list[str] = []

    @durable.function(id="pay", retries=1, backoff=durable.Backoff.fixed("1m"))
    def pay(ctx):
        ctx.step.run("reserve", lambda: calls.append("reserve"))
        return bank.charge()

    run = pay.enqueue()
    durable_kit.advance("1h")
    bank.open = True
    assert run.redrive() is True
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "charged"
    assert calls == ["reserve"]
    assert run.attempt == 0


def test_cancelled_run_can_be_redriven(durable_kit: Kit) -> None:
    calls: list[str] = []

    @durable.function(id="nap")
    def nap(ctx):
        ctx.step.run("before", lambda: calls.append("before"))
        ctx.step.sleep("long", "1d")
        ctx.step.run("after", lambda: calls.append("after"))

    run = nap.enqueue()
    durable_kit.advance("1h")
    run.cancel("by mistake")
    durable_kit.advance("1h")
    assert run.redrive() is True
    assert run.reason == ""
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.status == "completed"
    assert calls == ["before", "after"]


def test_redrive_takes_only_failed_and_cancelled_runs(durable_kit: Kit) -> None:
    look = durable.function(
        id="look", on=durable.Event("a/b", if_=lambda event: 1 / 0)
    )(lambda ctx: None)
    run = look.enqueue()
    assert run.redrive() is False
    run.wait(timeout=10)
    assert run.redrive() is False
    assert run.status == "completed"
    durable_kit.send("a/b")
    skipped = Run.objects.get(status="skipped")
    assert skipped.redrive() is False
    assert skipped.status == "skipped"


def test_second_redrive_returns_false(durable_kit: Kit, bank: Bank) -> None:
    pay = durable.function(id="pay", retries=0)(lambda ctx: bank.charge())
    run = pay.enqueue().wait(timeout=10)
    other = Run.objects.get(pk=run.pk)
    assert [run.redrive(), other.redrive()] == [True, False]


def test_failed_branch_is_retried_and_the_others_are_kept(
    durable_kit: Kit, bank: Bank
) -> None:
    calls: list[str] = []

    @durable.function(id="fan", retries=0)
    def fan(ctx):
        return ctx.step.parallel(
            "all",
            {
                "well": lambda: ctx.step.run("note", lambda: calls.append("note")),
                "badly": lambda: ctx.step.run("charge", bank.charge),
            },
        )

    run = fan.enqueue().wait(timeout=10)
    assert run.status == "failed"
    bank.open = True
    assert run.redrive() is True
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"well": None, "badly": "charged"}
    assert calls == ["note"]


def test_failed_child_is_invoked_again(durable_kit: Kit, bank: Bank) -> None:
    child = durable.function(id="child", retries=0)(lambda ctx: bank.charge())

    @durable.function(id="parent", retries=0)
    def parent(ctx):
        return ctx.step.invoke("call", child)

    run = parent.enqueue().wait(timeout=10)
    assert run.status == "failed"
    bank.open = True
    assert run.redrive() is True
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "charged"
    children = Run.objects.filter(function="child").order_by("pk")
    assert [one.status for one in children] == ["failed", "completed"]


def test_error_that_was_caught_stays_caught(durable_kit: Kit, bank: Bank) -> None:
    @durable.function(id="careful", retries=0)
    def careful(ctx):
        try:
            first = ctx.step.run("first", bank.charge)
        except durable.StepFailed as error:
            first = error.error_type
        return [first, ctx.step.run("second", bank.charge)]

    run = careful.enqueue().wait(timeout=10)
    assert run.status == "failed"
    bank.open = True
    run.redrive()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    # A recorded result never changes: only the failed step is retried.
    assert run.result() == ["ConnectionError", "charged"]


def test_redrive_of_a_queryset_redrives_many_runs(durable_kit: Kit, bank: Bank) -> None:
    pay = durable.function(id="pay", retries=0)(lambda ctx: bank.charge())
    runs = [pay.enqueue() for _ in range(3)]
    runs[2].cancel()
    durable_kit.run_until_idle()
    bank.open = True
    assert Run.objects.filter(function="pay").redrive() == 3
    durable_kit.run_until_idle()
    assert Run.objects.filter(status="completed").count() == 3
    assert Run.objects.all().redrive() == 0


def test_run_that_killed_its_workers_has_its_chances_again(
    durable_kit: Kit,
) -> None:
    @durable.function(id="heavy")
    def heavy(ctx):
        return ctx.step.run("explode", lambda: "fine")

    durable_kit.crash_at("explode", times=5)
    run = heavy.enqueue()
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.status == "failed"
    assert run.redrive() is True
    durable_kit.advance("1d")
    run.refresh_from_db()
    assert run.result() == "fine"
