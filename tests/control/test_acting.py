"""Actions on runs: each needs its own permission, and keeps its reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied

from durable_jobs import durable
from durable_jobs.control import run_actions
from durable_jobs.control.actor import Actor
from durable_jobs.control.run_actions import act
from durable_jobs.models import Run, Wait
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.lab.threads import elsewhere, together

pytestmark = pytest.mark.django_db


def actor(*actions: str) -> Actor:
    user = User.objects.create_user("ann")
    names = [f"{action}_run" for action in actions]
    user.user_permissions.set(Permission.objects.filter(codename__in=names))
    return Actor(User.objects.get(pk=user.pk))


def sleeping(kit: Kit) -> Run:
    @durable.function(id="tests.sleeper")
    def sleeper(ctx):
        ctx.step.sleep("nap", "30d")
        return "awake"

    run = sleeper.enqueue({"n": 1})
    kit.run_until_idle()
    run.refresh_from_db()
    return run


def entries(of: Any) -> list[str]:
    rows = LogEntry.objects.filter(object_id=str(of.pk)).order_by("pk")
    return [row.change_message for row in rows]


@pytest.mark.parametrize("action", run_actions.ACTIONS)
def test_each_action_needs_its_own_permission(action: str, durable_kit: Kit) -> None:
    run = sleeping(durable_kit)
    others = actor(*(set(run_actions.ACTIONS) - {action}))
    with pytest.raises(PermissionDenied):
        act(others, action, run, step="x")
    run.refresh_from_db()
    assert run.status == "waiting"
    assert not LogEntry.objects.exists()


def test_inactive_user_may_do_nothing(durable_kit: Kit) -> None:
    run, ann = sleeping(durable_kit), actor("cancel")
    ann.user.is_active = False
    with pytest.raises(PermissionDenied):
        act(ann, "cancel", run)


def test_permission_for_one_run_is_enough(durable_kit: Kit) -> None:
    run, ann = sleeping(durable_kit), actor()

    def own(permission: str, obj: Any = None) -> bool:
        return permission == "durable_jobs.cancel_run" and obj == run

    ann.user.has_perm = own
    act(ann, "cancel", run)
    assert run.status == "cancelled"


def test_history_records_user_action_and_reason(durable_kit: Kit) -> None:
    run, ann = sleeping(durable_kit), actor("cancel")
    act(ann, "cancel", run, reason="gateway was down")
    (entry,) = LogEntry.objects.all()
    assert entry.user == ann.user
    assert entry.get_edited_object() == run
    assert entry.change_message == "Run cancelled: gateway was down"


def test_history_of_a_subject_records_the_action_too(durable_kit: Kit) -> None:
    @durable.function(
        id="tests.refund", on=durable.ModelChange("shop.Order", created=True)
    )
    def refund(ctx):
        ctx.step.sleep("nap", "1d")

    order = Order.objects.create(tenant=Tenant.objects.create(name="t"), total=1)
    durable_kit.run_until_idle()
    run = Run.objects.get()
    act(actor("pause"), "pause", run, reason="hold it")
    assert entries(order) == [f"tests.refund {run.pk}: Run paused: hold it"]


def test_subject_of_a_run_may_be_deleted(durable_kit: Kit) -> None:
    run = sleeping(durable_kit)
    run.subjects.create(model="shop.order", object_pk="999")
    run.subjects.create(model="shop.gone", object_pk="1")
    act(actor("pause"), "pause", run)
    assert LogEntry.objects.count() == 1


def test_action_invalid_for_the_status_is_refused_and_not_logged(
    durable_kit: Kit,
) -> None:
    run = sleeping(durable_kit)
    ann = actor(*run_actions.ACTIONS)
    for action in ("resume", "redrive", "retry"):
        with pytest.raises(durable.ActionNotAllowed, match="waiting"):
            act(ann, action, run)
    with pytest.raises(durable.ActionNotAllowed):
        act(ann, "answer", run, step="nothing", value=1)
    assert not LogEntry.objects.exists()


def test_sleep_ends_when_a_user_wakes_the_run(durable_kit: Kit) -> None:
    run = sleeping(durable_kit)
    act(actor("wake"), "wake", run)
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == "awake"
    step = run.steps.get()
    assert (step.status, step.ended_at) == ("completed", durable_kit.now())


def test_delayed_run_begins_when_it_is_woken(durable_kit: Kit) -> None:
    @durable.function(id="tests.later")
    def later(ctx):
        return 1

    run = later.using(run_after=timedelta(days=3)).enqueue()
    durable_kit.run_until_idle()
    assert run_actions.worthwhile("wake", run, [])
    act(actor("wake"), "wake", run)
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 1


@pytest.mark.parametrize("inside", ["a step", "the function"])
def test_next_attempt_is_made_at_once(inside: str, durable_kit: Kit) -> None:
    tries: list[int] = []

    @durable.function(id="tests.flaky", backoff=durable.Backoff.fixed("1d"))
    def flaky(ctx):
        def body() -> str:
            tries.append(1)
            if len(tries) == 1:
                raise ConnectionError
            return "well"

        return ctx.step.run("call", body) if inside == "a step" else body()

    run = flaky.enqueue()
    durable_kit.run_until_idle()
    run.refresh_from_db()
    kinds = set(run.waits.values_list("kind", flat=True))
    assert run_actions.worthwhile("retry", run, kinds)
    assert not run_actions.worthwhile("wake", run, kinds)
    act(actor("retry"), "retry", run)
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert (run.result(), len(tries)) == ("well", 2)


def answered(kit: Kit, body: Any, value: Any) -> Any:
    run = durable.function(id="tests.asks")(body).enqueue({"n": 1})
    kit.run_until_idle()
    wait = Wait.objects.filter(run=run).exclude(kind="timeout").first()
    act(actor("answer"), "answer", run, step=wait.step, value=value)
    kit.run_until_idle()
    run.refresh_from_db()
    assert not Wait.objects.exists()
    return run.result()


def test_wait_for_an_event_is_answered_with_its_data(durable_kit: Kit) -> None:
    def asks(ctx):
        event = ctx.step.wait_for_event("w", "shop/paid", timeout="1d")
        return [event.name, event.data]

    assert answered(durable_kit, asks, {"n": 3}) == ["shop/paid", {"n": 3}]


def test_wait_for_any_gets_the_answer_of_its_first_alternative(
    durable_kit: Kit,
) -> None:
    def asks(ctx):
        waits = {"paid": durable.EventWait("a/b"), "stop": durable.SignalWait("s")}
        name, event = ctx.step.wait_for_any("w", waits)
        return [name, event.data]

    assert answered(durable_kit, asks, 3) == ["paid", 3]


def test_callback_and_signal_are_answered_with_their_data(
    durable_kit: Kit,
) -> None:
    def asks(ctx):
        return ctx.step.wait_for_signal("w", "go")

    assert answered(durable_kit, asks, {"go": True}) == {"go": True}


def test_step_between_two_attempts_is_skipped_with_a_value(
    durable_kit: Kit,
) -> None:
    def asks(ctx):
        def fails() -> None:
            raise ConnectionError

        return ctx.step.run("call", fails)

    assert answered(durable_kit, asks, "skipped") == "skipped"


def test_rerun_with_one_id_is_one_run(durable_kit: Kit) -> None:
    from durable_jobs import ids

    run, ann, new = sleeping(durable_kit), actor("rerun"), ids.new_id()
    assert act(ann, "rerun", run, new=new).run == Run.objects.get(pk=new)
    with pytest.raises(durable.ActionNotAllowed):
        act(ann, "rerun", run, new=new)
    assert Run.objects.count() == 2
    assert len(entries(run)) == 1


def test_rerun_with_other_data_needs_the_permission_to_edit(durable_kit: Kit) -> None:
    run = sleeping(durable_kit)
    ann = actor("rerun", "edit")
    assert act(ann, "edit", run, data={"n": 2}).run.data == {"n": 2}
    assert act(ann, "rerun", run, data={"n": 3}).run.data == {"n": 1}


@pytest.mark.django_db(transaction=True)
def test_second_of_two_concurrent_cancels_learns_of_the_first(
    durable_kit: Kit,
) -> None:
    run, ann = sleeping(durable_kit), actor("cancel")

    def cancel() -> Any:
        return act(ann, "cancel", Run.objects.get(pk=run.pk), reason="both")

    outcomes = together(cancel, cancel, but=(durable.ActionNotAllowed,))
    names = sorted(type(one).__name__ for one in outcomes)
    assert names == ["ActionNotAllowed", "ActionResult"]
    assert elsewhere(lambda: entries(run)) == ["Run cancelled: both"]
