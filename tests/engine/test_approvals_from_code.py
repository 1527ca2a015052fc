"""``durable.approvals``: pages of a project that list and decide approvals."""

from __future__ import annotations

from decimal import Decimal

import pytest
from django import forms
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.core.exceptions import PermissionDenied, ValidationError

from durable_jobs import durable
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


class AmountForm(forms.Form):
    """A form with an amount."""

    amount = forms.DecimalField(max_value=100)


@pytest.fixture
def manager(db: None) -> User:
    """Return a user who may decide."""
    user = User.objects.create_user("ann")
    user.user_permissions.add(Permission.objects.get(codename="change_order"))
    return User.objects.get(pk=user.pk)


def asking(kit: Kit, title: str = "Pay?", form: type[forms.Form] | None = None) -> Run:
    """Start a run that asks for an approval, and run it up to that."""

    @durable.function(id=f"tests.asks.{title}")
    def asks(ctx):
        return ctx.step.approve(
            "boss",
            title=title,
            permission="shop.change_order",
            form=form,
            timeout="7d",
        )

    run = asks.enqueue()
    kit.run_until_idle()
    return run


def ended(kit: Kit, run: Run) -> Run:
    """Let a run end."""
    kit.run_until_idle()
    run.refresh_from_db()
    return run


def test_pending_lists_approvals_a_user_may_decide_oldest_first(
    durable_kit: Kit, manager: User
) -> None:
    for title in ("first", "second", "third"):
        asking(durable_kit, title)
    found = durable.approvals.pending(manager)
    assert [one.title for one in found] == ["first", "second", "third"]
    assert [one.step for one in found] == ["boss"] * 3
    assert [one.title for one in durable.approvals.pending(limit=2)] == [
        "first",
        "second",
    ]
    assert len(durable.approvals.pending(manager, limit=1)) == 1
    assert durable.approvals.pending(User.objects.create_user("eve")) == []


def test_get_finds_an_approval_by_the_id_or_the_key_of_its_step(
    durable_kit: Kit,
) -> None:
    run = asking(durable_kit)
    found = durable.approvals.get(run, "boss")
    assert found is not None
    assert durable.approvals.get(run, found.key) == found
    assert found.is_open
    assert found.verdict == ""
    assert found.until is not None
    assert found.since is not None
    assert durable.approvals.get(run, "other") is None


def test_approve_returns_the_cleaned_data_to_the_run(
    durable_kit: Kit, manager: User
) -> None:
    run = asking(durable_kit, form=AmountForm)
    (approval,) = durable.approvals.pending(manager)
    assert not approval.form({"amount": "x"}).is_valid()
    assert durable.approvals.approve(
        approval, {"amount": "7.50"}, by=manager, note="fine"
    )
    assert ended(durable_kit, run).result() == {"amount": Decimal("7.50")}
    entry = LogEntry.objects.get(object_id=str(run.pk))
    assert entry.change_message == "Approval “boss” approved: fine"
    assert durable.approvals.pending() == []


def test_reject_raises_in_the_run_with_the_reason(
    durable_kit: Kit, manager: User
) -> None:
    run = asking(durable_kit)
    (approval,) = durable.approvals.pending()
    assert durable.approvals.reject(approval, "too much", by=manager)
    assert ended(durable_kit, run).error["message"] == "Rejected by ann: too much"


def test_second_decision_is_false_and_names_the_first(
    durable_kit: Kit, manager: User
) -> None:
    run = asking(durable_kit)
    (approval,) = durable.approvals.pending()
    assert durable.approvals.approve(approval, by=manager)
    assert not durable.approvals.reject(approval, "late", by=manager)
    again = durable.approvals.get(run, "boss")
    assert again is not None
    assert not again.is_open
    assert "approved by ann" in again.verdict
    assert ended(durable_kit, run).result() == {}


def test_decision_needs_the_permission_unless_the_check_is_off(
    durable_kit: Kit,
) -> None:
    run, eve = asking(durable_kit), User.objects.create_user("eve")
    (approval,) = durable.approvals.pending()
    assert not approval.may_decide(eve)
    for decision in ("approve", "reject"):
        with pytest.raises(PermissionDenied):
            durable.approvals.decide(approval, decision, by=eve, note="no")
    assert durable.approvals.decide(approval, "approve", by=eve, check=False)
    assert ended(durable_kit, run).steps.get().detail["name"] == "eve"


def test_decision_without_a_user_is_made_only_unchecked(durable_kit: Kit) -> None:
    run = asking(durable_kit)
    (approval,) = durable.approvals.pending()
    with pytest.raises(ConfigurationError, match="Expected by="):
        durable.approvals.approve(approval)
    with pytest.raises(ConfigurationError, match="Expected a decision among"):
        durable.approvals.decide(approval, "perhaps", check=False)
    assert durable.approvals.reject(approval, "no", check=False)
    assert ended(durable_kit, run).error["message"] == "Rejected: no"
    assert not LogEntry.objects.exists()


def test_bad_data_raises_the_validation_error_of_django(
    durable_kit: Kit, manager: User
) -> None:
    asking(durable_kit, form=AmountForm)
    (approval,) = durable.approvals.pending()
    with pytest.raises(ValidationError) as wrong:
        durable.approvals.approve(approval, {"amount": "1000"}, by=manager)
    assert list(wrong.value.message_dict) == ["amount"]
    with pytest.raises(ValidationError) as missing:
        durable.approvals.reject(approval, "", by=manager)
    assert list(missing.value.message_dict) == ["note"]
    again = durable.approvals.get(approval.run, "boss")
    assert again is not None
    assert again.is_open
