"""The checker of the crash tests detects each kind of violation."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.db import connection

from durable_jobs import clock, durable
from durable_jobs.models import Run, Step, Wait
from durable_jobs.testing import Kit
from tests.lab import checker, effects, journal
from tests.lab.models import Account, Effect

Finds = Callable[[str], None]


@pytest.fixture
def kit(db: None):
    """Yield a kit with the journal switched on."""
    if connection.vendor != "postgresql":
        pytest.skip("the journal is written by PostgreSQL's triggers")
    Account.objects.create(name="ledger")
    with journal.kept(), Kit() as kit:
        yield kit


@pytest.fixture
def done(kit: Kit) -> Run:
    """Return a completed run with a booking, a child and an ordinary step."""

    @durable.function(id="t.child")
    def child(ctx):
        return "child"

    @durable.function(id="t.parent", on_complete=lambda ctx: None)
    def parent(ctx):
        ctx.step.run("one", effects.effect, ctx.run_id, "one")
        ctx.step.atomic("book", effects.add, "ledger", 5)
        return ctx.step.invoke("child", child)

    run: Run = parent.enqueue()
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "child"
    assert Effect.objects.filter(run=str(run.pk)).count() == 2
    assert checker.violations() == []
    return run


def found(rule: str) -> bool:
    """Return whether the checker reports a broken rule."""
    broken = {one.partition(":")[0] for one in checker.violations()}
    if rule in broken:
        with pytest.raises(AssertionError, match=rule):
            checker.check()
    return rule in broken


def test_ended_run_with_a_lease_is_found(done: Run) -> None:
    Run.objects.filter(pk=done.pk).update(lease_token=uuid.uuid4())
    assert found("ended_runs_are_at_rest")


def test_ended_run_that_waits(done: Run) -> None:
    Wait.objects.create(run=done, kind="event", name="x", created_at=clock.now())
    assert found("ended_runs_are_at_rest")
    assert found("the_doctor_finds_nothing")


def test_ended_run_with_an_open_step(done: Run) -> None:
    done.steps.filter(name="one").update(status="running")
    assert found("ended_runs_are_at_rest")


def test_body_that_is_called_again_after_its_record(done: Run) -> None:
    Effect.objects.filter(label="one").update(recorded=True)
    assert found("a_recorded_body_is_never_called_again")


def test_body_of_an_attempt_that_had_lost_its_run(done: Run) -> None:
    Effect.objects.filter(label="one").update(recorded=True, held=False)
    assert checker.violations() == []


def test_effect_records_that_its_step_was_recorded(kit: Kit) -> None:
    """The bodies themselves write what the rule above reads."""

    @durable.function(id="t.forgetful")
    def forgetful(ctx):
        ctx.step.run("one", twice, ctx.run_id)

    def twice(run_id):
        effects.effect(run_id, "first")
        Step.objects.create(
            id=uuid.uuid4(),
            run_id=run_id,
            key="k",
            name="one",
            kind="run",
            status="completed",
        )
        effects.effect(run_id, "second")

    forgetful.enqueue()
    kit.run_until_idle()
    flags = {one.label: (one.recorded, one.held) for one in Effect.objects.all()}
    assert flags == {"first": (False, True), "second": (True, True)}


def test_booking_that_was_made_twice(done: Run) -> None:
    Effect.objects.create(
        run=str(done.pk), step="book", label="ledger", pid=1, at=clock.now(), booked=5
    )
    assert found("atomic_effects_are_there_exactly_once")


def test_missing_booking_is_found(done: Run) -> None:
    Effect.objects.filter(label="ledger").delete()
    assert found("atomic_effects_are_there_exactly_once")


def test_balance_that_no_booking_explains(done: Run) -> None:
    Account.objects.update(balance=10)
    assert found("atomic_effects_are_there_exactly_once")


def test_result_that_changes(done: Run) -> None:
    done.steps.filter(name="one").update(output="two")
    assert found("recorded_results_never_change")


def test_output_that_changes(done: Run) -> None:
    Run.objects.filter(pk=done.pk).update(output="other")
    assert found("recorded_results_never_change")


def test_function_that_saw_another_result_than_is_recorded(kit: Kit) -> None:
    @durable.function(id="t.drawing")
    def drawing(ctx):
        return {"drawn": {"draw": ctx.step.run("draw", effects.draw, ctx.run_id, "x")}}

    run = drawing.enqueue()
    kit.run_until_idle()
    assert checker.violations() == []
    run.steps.update(output="other")
    assert found("a_function_sees_what_is_recorded")


def test_move_that_may_not_be(done: Run) -> None:
    Run.objects.filter(pk=done.pk).update(status="queued", ended_at=None)
    assert found("runs_move_as_they_may")


def test_child_that_outlives_its_parent(done: Run) -> None:
    Run.objects.filter(parent=done, function="t.child").update(
        status="queued", ended_at=None
    )
    assert found("children_agree_with_their_parents")


def test_child_with_another_result_than_its_parent_got(done: Run) -> None:
    Run.objects.filter(parent=done, function="t.child").update(output="other")
    assert found("children_agree_with_their_parents")


def test_second_child_of_one_step_is_found(done: Run) -> None:
    child = Run.objects.get(function="t.child")
    child.pk = uuid.uuid4()
    child.save(force_insert=True)
    assert found("children_agree_with_their_parents")


def test_second_handler_of_one_end_is_found(done: Run) -> None:
    handler = Run.objects.get(parent_relation="handler")
    handler.pk = uuid.uuid4()
    handler.save(force_insert=True)
    assert found("an_end_is_followed_once")


def test_findings_of_the_doctor_are_found(done: Run) -> None:
    Run.objects.filter(pk=done.pk).update(status="running", ended_at=None)
    assert found("the_doctor_finds_nothing")


def test_rules_have_all_been_broken_here() -> None:
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    for rule in checker.RULES:
        assert f'found("{rule.__name__[1:]}")' in text


def test_late_work_is_left_to_the_test(kit: Kit) -> None:
    @durable.function(id="t.late")
    def late(ctx):
        return None

    run = late.enqueue()
    past = clock.now() - timedelta(hours=1)
    Run.objects.filter(pk=run.pk).update(due_at=past, run_order=past)
    assert checker.violations() == []
