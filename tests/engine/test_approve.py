"""``ctx.step.approve``: decisions of users."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest
from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied

from durable_jobs import durable
from durable_jobs.control import approval_decisions
from durable_jobs.control.actor import Actor
from durable_jobs.models import Run, Wait, WaitKind
from durable_jobs.testing import Kit
from project.shop.models import Order, Tenant
from tests.engine.conftest import Configure, Later, Start

ASKED: dict[str, Any] = {"title": "Pay order 7", "permission": "shop.change_order"}


class PayForm(forms.Form):
    """A form with a recipient, an amount and a date."""

    amount = forms.DecimalField(max_value=100)
    on = forms.DateField(required=False)
    to = forms.ModelChoiceField(Tenant.objects.all(), required=False)
    others = forms.ModelMultipleChoiceField(Tenant.objects.all(), required=False)


class FileForm(forms.Form):
    """A form whose data cannot be stored."""

    invoice = forms.FileField()


class LateForm(forms.Form):
    """A valid form whose cleaned data cannot be stored."""

    amount = forms.IntegerField()

    def clean(self) -> Any:
        """Return data that cannot be stored."""
        return {**(super().clean() or {}), "connection": object()}


def asking(**options: Any) -> Any:
    """Return a function that asks for an approval and returns the decision, twice."""

    def ask(ctx):
        try:
            given = ctx.step.approve("ask", **{**ASKED, **options})
            told = ["approved", given]
        except durable.ApprovalRejected as error:
            told = [type(error).__name__, error.reason, error.by, str(error)]
        ctx.step.sleep("nap", "1d")
        seen.append(told)
        return told

    seen: list[Any] = []
    return ask


@pytest.fixture
def manager(db: None) -> User:
    """Return a user who may decide."""
    user = User.objects.create_user("manager", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_order"))
    return user


def test_approval_without_a_form_returns_an_empty_dict(
    start: Start, later: Later, durable_kit: Kit
):
    run = start(asking())
    assert run.status == "waiting"
    assert run.lease_token is None, "a worker is still busy"
    durable_kit.approve("ask")

    assert later(run, "1d").result() == ["approved", {}]


def test_result_is_the_cleaned_data_of_the_form(
    start: Start, later: Later, durable_kit: Kit
):
    ann, bob = (Tenant.objects.create(name=name) for name in ("Ann", "Bob"))
    run = start(asking(form=PayForm))
    durable_kit.approve(
        "ask",
        {
            "amount": "9.50",
            "on": "2026-03-04",
            "to": ann.pk,
            "others": [ann.pk, bob.pk],
        },
    )

    assert later(run, "1d").result() == [
        "approved",
        {
            "amount": Decimal("9.50"),
            "on": datetime.date(2026, 3, 4),
            "to": ann,
            "others": [ann, bob],
        },
    ]


def test_instance_in_the_result_is_loaded_anew(start: Start, later: Later, durable_kit):
    ann = Tenant.objects.create(name="Ann")

    def ask(ctx):
        given = ctx.step.approve("ask", **ASKED, form=PayForm)
        ctx.step.sleep("nap", "1h")
        return given["to"].name

    run = start(ask)
    durable_kit.approve("ask", {"amount": 1, "to": ann})
    later(run)
    Tenant.objects.update(name="Anna")
    assert later(run, "1h").result() == "Anna"


def test_invalid_form_is_refused_and_can_be_corrected(
    start: Start, later: Later, durable_kit: Kit
):
    run = start(asking(form=PayForm))
    with pytest.raises(durable.InvalidForm, match="amount") as caught:
        durable_kit.approve("ask", {"amount": 101, "on": "tomorrow"})
    assert set(caught.value.errors) == {"amount", "on"}
    assert caught.value.form.is_bound
    assert later(run).steps.get(name="ask").status == "waiting"
    durable_kit.approve("ask", {"amount": 100})

    assert later(run, "1d").result()[1]["amount"] == 100


def test_form_data_that_cannot_be_stored_is_an_error_of_the_form(
    start: Start, durable_kit: Kit
):
    start(asking(form=LateForm))
    with pytest.raises(durable.InvalidForm, match="connection") as caught:
        durable_kit.approve("ask", {"amount": 1})
    assert caught.value.form.non_field_errors()


def test_rejection_is_raised_with_its_reason(
    start: Start, later: Later, durable_kit: Kit, manager: User
):
    run = start(asking())
    durable_kit.reject("ask", "too much", by=manager)

    assert later(run, "1d").result() == [
        "ApprovalRejected",
        "too much",
        str(manager.pk),
        "Rejected by manager: too much",
    ]


def test_uncaught_rejection_fails_the_run_at_once(
    start: Start, later: Later, durable_kit: Kit
):
    def ask(ctx):
        ctx.step.approve("ask", **ASKED)

    run = start(ask)
    durable_kit.reject("ask", "no")
    failed = later(run)
    assert (failed.status, failed.error["type"]) == ("failed", "ApprovalRejected")
    assert failed.attempt == 0

    failed.redrive()
    durable_kit.run_until_idle()
    durable_kit.approve("ask")
    assert later(failed).status == "completed"


def test_rejection_needs_a_reason(start: Start, durable_kit: Kit):
    start(asking())
    for reason in ("", "  ", "x" * 1001):
        with pytest.raises(durable.InvalidForm) as caught:
            durable_kit.reject("ask", reason)
        assert set(caught.value.errors) == {"reason"}


def test_step_records_the_decider_and_the_time(
    start: Start, later: Later, durable_kit: Kit, manager: User
):
    run = start(asking(form=PayForm))
    asked = run.steps.get(name="ask").detail
    assert asked == {
        **ASKED,
        "form": "tests.engine.test_approve:PayForm",
    }
    durable_kit.approve("ask", {"amount": 1}, by=manager)
    assert run.steps.get(name="ask").detail == {
        **asked,
        "decision": "approved",
        "by": str(manager.pk),
        "name": "manager",
        "at": durable_kit.now().isoformat(),
    }


def test_result_is_none_after_the_timeout(start: Start, later: Later, durable_kit: Kit):
    run = later(start(asking(timeout="1h")), "59m")
    assert run.steps.get(name="ask").status == "waiting"
    run = later(run, "1m")
    assert run.steps.get(name="ask").status == "timed_out"
    with pytest.raises(durable.ActionNotAllowed):
        durable_kit.approve("ask")

    assert later(run, "1d").result() == ["approved", None]


def test_decision_in_time_ends_the_timeout_too(
    start: Start, later: Later, durable_kit: Kit
):
    run = start(asking(timeout="1h"))
    durable_kit.approve("ask")
    assert not run.waits.exists()

    assert later(run, "1d").result() == ["approved", {}]


def test_run_that_was_cancelled_asks_no_more(start: Start, durable_kit: Kit, manager):
    run = start(asking())
    key = run.steps.get(name="ask").key
    run.cancel()
    with pytest.raises(durable.ActionNotAllowed, match="cancelled"):
        approval_decisions.approve(Actor(manager), run, key, {})
    assert not LogEntry.objects.exists()


def test_paused_run_can_be_decided_and_continues_at_the_resume(
    start: Start, later: Later, durable_kit: Kit
):
    run = start(asking())
    run.pause()
    durable_kit.approve("ask")
    assert later(run).status == "paused"
    run.resume()

    assert later(run, "1d").result() == ["approved", {}]


def test_first_decision_wins_and_the_second_learns_of_it(
    start: Start, later: Later, durable_kit: Kit, manager: User
):
    run = start(asking())
    key = run.steps.get(name="ask").key
    approval_decisions.approve(Actor(manager), run, key, {})
    with pytest.raises(durable.ActionNotAllowed, match="approved by manager"):
        approval_decisions.reject(Actor(manager), run, key, "too late")

    assert later(run, "1d").result() == ["approved", {}]
    assert LogEntry.objects.count() == 1


def test_decision_needs_the_permission(
    start: Start, later: Later, durable_kit: Kit, manager: User
):
    run = start(asking())
    stranger = User.objects.create_user("stranger", is_staff=True)
    for decide in (
        lambda: durable_kit.approve("ask", by=stranger),
        lambda: durable_kit.reject("ask", by=stranger),
    ):
        with pytest.raises(PermissionDenied):
            decide()
    durable_kit.approve("ask", by=manager)

    assert later(run, "1d").result() == ["approved", {}]


def test_decision_is_logged_for_the_run_and_its_subjects(
    start: Start, durable_kit: Kit, manager: User
):
    order = Order.objects.create(tenant=Tenant.objects.create(name="Ann"), total=1)
    run = start(asking(), {"order": order})
    durable_kit.reject("ask", "too much", by=manager)

    entries = {one.object_id: one for one in LogEntry.objects.all()}
    assert set(entries) == {str(run.pk), str(order.pk)}
    for entry in entries.values():
        assert entry.user == manager
        assert "Approval “ask” rejected: too much" in entry.get_change_message()


def test_branches_ask_side_by_side(start: Start, later: Later, durable_kit: Kit):
    def ask(ctx):
        def one(name):
            with ctx.step.group("inside"):
                return ctx.step.approve("ask", **{**ASKED, "title": name}, form=PayForm)

        return ctx.step.map("all", one, ["a", "b"])

    run = start(ask)
    assert Wait.objects.filter(kind=WaitKind.APPROVAL).count() == 2
    for amount in (1, 2):
        durable_kit.approve("ask", {"amount": amount})
    assert [given["amount"] for given in later(run).result()] == [1, 2]


def test_loser_of_a_race_asks_no_more(start: Start, later: Later, durable_kit: Kit):
    def ask(ctx):
        return ctx.step.parallel(
            "race",
            [
                lambda: ctx.step.approve("ask", **ASKED),
                lambda: ctx.step.sleep("nap", "1h"),
            ],
            completion=durable.First(),
        )

    run = start(ask)
    assert later(run, "1h").status == "completed"
    with pytest.raises(durable.ActionNotAllowed):
        durable_kit.approve("ask")


def test_async_function_asks(start: Start, later: Later, durable_kit: Kit):
    async def ask(ctx):
        tenant = await ctx.step.approve("ask", **ASKED, form=PayForm)
        try:
            await ctx.step.approve("again", **ASKED, timeout="1h")
        except durable.ApprovalRejected as error:
            return [tenant["to"].name, error.reason]

    run = start(ask)
    ann = Tenant.objects.create(name="Ann")
    durable_kit.approve("ask", {"amount": 1, "to": ann.pk})
    later(run)
    durable_kit.reject("again", "once is enough")
    assert later(run).result() == ["Ann", "once is enough"]


def test_kit_decides_the_oldest_or_the_named_of_several_approvals(
    start: Start, later: Later, durable_kit: Kit
):
    function = durable.function(id="tests.many")(asking())
    first, second, third = (start(function) for _ in range(3))
    durable_kit.approve("ask", run=second)
    durable_kit.approve("ask")
    durable_kit.run_until_idle()
    assert first.steps.get(name="ask").status == "completed"
    assert second.steps.get(name="ask").status == "completed"
    assert third.steps.get(name="ask").status == "waiting"


def test_kit_raises_if_no_approval_is_pending(durable_kit: Kit):
    with pytest.raises(durable.ActionNotAllowed, match="'ask'"):
        durable_kit.approve("ask")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 256}, "title"),
        ({"title": None}, "title"),
        ({"permission": "change_order"}, "app.codename"),
        ({"permission": "shop."}, "app.codename"),
        ({"permission": None}, "permission"),
        ({"permission": "shop.chnage_order"}, "no permission 'shop.chnage_order'"),
        ({"form": "PayForm"}, "class of django.forms"),
        ({"form": PayForm({})}, "class of django.forms"),
        ({"form": type("Local", (forms.Form,), {})}, "class at the top of a module"),
        ({"form": FileForm}, "invoice"),
        ({"timeout": -1}, "timeout"),
    ],
    ids=str,
)
def test_wrong_call_is_refused(start: Start, options, expected):
    run = start(asking(**options))
    assert run.error["type"] == "ConfigurationError"
    assert expected in run.error["message"]


def test_permission_may_come_from_a_custom_backend(
    start: Start, durable_kit: Kit, settings
):
    settings.AUTHENTICATION_BACKENDS = ["tests.engine.test_approve.Rules"]
    start(asking(permission="shop.by_rule"))
    durable_kit.approve("ask", by=User.objects.create_user("ruled"))


class Rules:
    """An authentication backend that decides by a rule, without permission rows."""

    def has_perm(self, user: Any, permission: str, obj: Any = None) -> bool:
        """Return whether the rule allows it, for a run only."""
        return permission == "shop.by_rule" and isinstance(obj, Run)


def test_worker_death_after_the_decision_loses_nothing(
    start: Start, later: Later, durable_kit: Kit
):
    def ask(ctx):
        given = ctx.step.approve("ask", **ASKED, form=PayForm)
        ctx.step.run("pay", lambda: paid.append(given["amount"]))
        return int(given["amount"])

    paid: list[Any] = []
    run = start(ask)
    durable_kit.crash_at("pay", when="before")
    durable_kit.approve("ask", {"amount": 5})
    later(run)
    assert paid == []
    assert later(run, "61s").result() == 5
    assert paid == [5]


def test_result_has_the_size_limit_of_every_step(
    start: Start, durable_kit: Kit, configure: Configure
):
    configure(MAX_STEP_BYTES=1000)
    start(asking(form=NoteForm))
    with pytest.raises(durable.InvalidForm, match="MAX_STEP_BYTES"):
        durable_kit.approve("ask", {"note": "x" * 2000})
    durable_kit.approve("ask", {"note": "short"})


class NoteForm(forms.Form):
    """A form with a long text."""

    note = forms.CharField()
