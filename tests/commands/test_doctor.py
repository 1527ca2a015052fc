"""``durable_doctor`` finds each invariant violation, and ``--fix`` repairs it."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest

from durable_jobs import durable
from durable_jobs.maintenance import doctor
from durable_jobs.maintenance.invariants import VIOLATIONS
from durable_jobs.models import FailedAttempt, Run, Step, Subject, Wait

pytestmark = pytest.mark.django_db


def test_sound_installation_is_well(durable_kit, asleep, diagnose, call):
    code, report = diagnose("--deep")
    assert (code, report["healthy"], report["findings"]) == (0, True, [])
    assert report["figures"]["runs"] == {"waiting": 1}
    assert report["figures"]["waits"] == 1
    said = call("durable_doctor")
    assert said.endswith("All is well.\n")
    assert "1 waiting" in said


def test_running_run_without_a_lease_is_found(durable_kit, napper, finds):
    durable_kit.run_until_idle()
    run = napper.enqueue()
    Run.objects.filter(pk=run.pk).update(status="running")
    assert finds("running-unheld") == {"running-unheld": 1}
    durable_kit.advance("1h")
    assert Run.objects.get().result() == "rested"


def test_idle_run_with_a_lease_is_found(durable_kit, asleep, finds):
    later = durable_kit.now() + timedelta(days=1)
    Run.objects.update(lease_token=uuid.uuid4(), lease_until=later)
    finds("lease-at-rest")
    durable_kit.advance("1h")
    assert Run.objects.get().result() == "rested"


def test_waits_of_runs_that_are_over(durable_kit, asleep, finds):
    later = durable_kit.now() + timedelta(days=1)
    ended = uuid.uuid4()
    Wait.objects.create(run_id=ended, kind="event", name="x", created_at=later)
    asleep.cancel()
    Wait.objects.create(
        run_id=asleep.pk, kind="sleep", due_at=later, created_at=durable_kit.now()
    )
    finds("wait-of-ended-run", count=2)
    assert not Wait.objects.exists()


def test_wait_of_an_ended_run_is_deleted_while_other_runs_live(
    durable_kit, asleep, napper, finds
):
    asleep.cancel()
    Wait.objects.create(
        run_id=asleep.pk, kind="event", name="x", created_at=durable_kit.now()
    )
    other = napper.enqueue()
    durable_kit.run_until_idle()
    finds("wait-of-ended-run")
    assert Wait.objects.get().run_id == other.pk


def test_wait_of_an_ended_step_is_found(durable_kit, finds):
    @durable.function(id="t.two")
    def two(ctx):
        ctx.step.run("one", lambda: 1)
        ctx.step.sleep("nap", "1h")

    run = two.enqueue()
    durable_kit.run_until_idle()
    step = run.steps.get(name="one")
    Wait.objects.create(
        run=run, step=step.key, kind="event", name="x", created_at=durable_kit.now()
    )
    finds("wait-of-ended-step")
    assert Wait.objects.get().kind == "sleep"


def test_sleep_without_a_wait_keeps_its_duration(durable_kit, asleep, finds):
    Wait.objects.all().delete()
    finds("waiting-for-nothing")
    durable_kit.advance("59m")
    asleep.refresh_from_db()
    assert asleep.status == "waiting"
    durable_kit.advance("1m")
    asleep.refresh_from_db()
    assert asleep.result() == "rested"


def test_retry_without_a_timer_is_made(durable_kit, finds):
    tries = []

    def flaky():
        tries.append(1)
        if len(tries) < 2:
            raise ValueError("no")
        return len(tries)

    @durable.function(id="t.retry", backoff=durable.Backoff.fixed("10m"))
    def retry(ctx):
        return ctx.step.run("shaky", flaky)

    run = retry.enqueue()
    durable_kit.run_until_idle()
    Wait.objects.all().delete()
    finds("waiting-for-nothing")
    durable_kit.advance("10m")
    run.refresh_from_db()
    assert run.result() == 2


def test_wait_for_an_event_without_a_row_is_restored(durable_kit, finds):
    @durable.function(id="t.event")
    def waits(ctx):
        return ctx.step.wait_for_event("w", "t/came", match="data.x").data["y"]

    run = waits.enqueue({"x": 1})
    durable_kit.run_until_idle()
    Wait.objects.all().delete()
    finds("waiting-for-nothing")
    durable_kit.run_until_idle()
    durable_kit.send("t/came", {"x": 2, "y": "wrong"})
    durable_kit.send("t/came", {"x": 1, "y": "right"})
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "right"


def test_condition_without_a_timer_is_checked(durable_kit, finds):
    @durable.function(id="t.poll")
    def poll(ctx):
        return ctx.step.wait_for_condition(
            "c",
            lambda state: durable.Done(state) if state == 2 else state + 1,
            every="10m",
            initial=0,
        )

    run = poll.enqueue()
    durable_kit.run_until_idle()
    Wait.objects.all().delete()
    finds("waiting-for-nothing")
    durable_kit.advance("20m")
    run.refresh_from_db()
    assert run.result() == 2


def test_callback_without_a_wait_can_be_answered_again(durable_kit, finds):
    tokens = []

    @durable.function(id="t.callback")
    def callback(ctx):
        return ctx.step.wait_for_callback("c", lambda given: tokens.append(given.token))

    run = callback.enqueue()
    durable_kit.run_until_idle()
    Wait.objects.all().delete()
    finds("waiting-for-nothing")
    durable.callbacks.succeed(tokens[0], 5)
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 5
    assert len(tokens) == 1


def test_lost_sleep_is_registered_again_without_waits_of_ended_steps(
    durable_kit, finds
):
    tokens = []

    @durable.function(id="t.paid")
    def paid(ctx):
        ctx.step.wait_for_callback("c", lambda given: tokens.append(given.token))
        ctx.step.sleep("nap", "1h")

    paid.enqueue()
    durable_kit.run_until_idle()
    durable.callbacks.succeed(tokens[0], 5)
    durable_kit.run_until_idle()
    Wait.objects.all().delete()
    finds("waiting-for-nothing")
    assert Wait.objects.get().kind == "sleep"


def test_approval_without_a_wait_is_asked_again(durable_kit, finds):
    @durable.function(id="t.approve")
    def approve(ctx):
        return ctx.step.approve("a", "Go on", "shop.change_order")

    run = approve.enqueue()
    durable_kit.run_until_idle()
    Wait.objects.all().delete()
    finds("waiting-for-nothing")
    assert Wait.objects.get().name == "shop.change_order"
    durable_kit.approve("a")
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {}


@pytest.fixture
def parent(durable_kit, napper):
    """Return a run that waits for a sleeping child."""

    @durable.function(id="t.parent")
    def parent(ctx):
        return ctx.step.invoke("child", napper)

    run = parent.enqueue()
    durable_kit.run_until_idle()
    return run


def test_end_of_a_child_without_a_wait_reaches_its_parent(durable_kit, parent, finds):
    Wait.objects.filter(kind="child").delete()
    finds("waiting-for-nothing")
    durable_kit.advance("1h")
    parent.refresh_from_db()
    assert parent.result() == "rested"


def test_unannounced_end_of_a_child_reaches_its_parent(durable_kit, parent, finds):
    now = durable_kit.now()
    child = Run.objects.filter(function="t.napper")
    Wait.objects.filter(kind="sleep").delete()
    child.get().steps.all().delete()
    child.update(status="completed", output="in silence", ended_at=now)
    finds("wait-for-no-child")
    durable_kit.run_until_idle()
    parent.refresh_from_db()
    assert parent.result() == "in silence"


def test_missing_child_fails_its_parent(durable_kit, parent, finds):
    Wait.objects.filter(kind="sleep").delete()
    Step.objects.filter(name="nap").delete()
    Run.objects.filter(function="t.napper").delete()
    finds("wait-for-no-child")
    durable_kit.run_until_idle()
    parent.refresh_from_db()
    assert parent.status == "failed"
    assert "no longer exists" in parent.error["message"]


def test_child_whose_parent_has_ended_is_cancelled(durable_kit, parent, finds):
    Wait.objects.filter(kind="child").delete()
    Step.objects.filter(name="child").delete()
    Run.objects.filter(pk=parent.pk).update(
        status="completed", ended_at=durable_kit.now()
    )
    finds("child-without-parent")
    assert Run.objects.get(function="t.napper").status == "cancelled"


def test_deep_check_finds_open_steps_of_ended_runs(durable_kit, asleep, diagnose):
    asleep.cancel()
    Step.objects.update(status="sleeping", ended_at=None)
    assert diagnose()[0] == 0
    code, report = diagnose("--deep")
    assert code == 1
    assert [one["check"] for one in report["findings"]] == ["open-step-of-ended-run"]
    assert diagnose("--deep", "--fix")[0] == 0
    assert Step.objects.get().status == "cancelled"


def test_deep_check_finds_orphaned_rows(durable_kit, asleep, diagnose):
    now = durable_kit.now()
    gone = uuid.uuid4()
    Step.objects.create(
        id=uuid.uuid4(), run_id=gone, key="k", name="n", kind="run", status="completed"
    )
    FailedAttempt.objects.create(run_id=gone, number=0, error={}, ended_at=now)
    Subject.objects.create(run_id=gone, model="shop.order", object_pk="1")
    assert diagnose()[0] == 0
    code, report = diagnose("--deep")
    assert code == 1
    assert sorted(one["check"] for one in report["findings"]) == [
        "failedattempt-without-run",
        "step-without-run",
        "subject-without-run",
    ]
    assert diagnose("--deep", "--fix")[0] == 0
    assert not FailedAttempt.objects.exists()
    assert Step.objects.get().run == asleep


def test_great_many_are_mended(durable_kit, napper, finds, monkeypatch):
    monkeypatch.setattr(doctor, "REPAIRED_AT_ONCE", 3)
    durable_kit.run_until_idle()
    for _ in range(7):
        napper.enqueue()
    Run.objects.update(status="running")
    assert finds("running-unheld", count=7) == {"running-unheld": 7}


def test_violations_have_unique_names():
    names = [fault.name for fault in VIOLATIONS]
    assert len(set(names)) == len(names)
