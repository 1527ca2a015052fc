"""Approvals over HTTP need the permission of the approval and the key's scope."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.contrib.auth.models import Permission, User

from durable_jobs import durable
from durable_jobs.models import Run
from tests.api.conftest import EVERY, person_of, problem, program_of

pytestmark = pytest.mark.django_db
SCOPE = "approvals:decide"


class AmountForm(forms.Form):
    """A form with an amount."""

    amount = forms.IntegerField(max_value=100)


@pytest.fixture
def run(kit: Any) -> Run:
    """Start a run that asks for an approval."""

    @durable.function(id="tests.approved")
    def approved(ctx):
        return ctx.step.approve(
            "boss", title="Pay?", permission="shop.change_order", form=AmountForm
        )

    made = approved.enqueue()
    kit.run_until_idle()
    return made


@pytest.fixture
def manager(db: None) -> User:
    """Return a user who may decide, and nothing else."""
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_order"))
    return user


def place(run: Run) -> str:
    """Return the address of the decision of the run's approval."""
    return f"approvals/{run.steps.get().pk}/decide"


def test_key_with_the_scope_lists_and_decides_its_owners_approvals(
    kit: Any, run: Run, manager: User
) -> None:
    program = program_of(manager, SCOPE)
    (shown,) = program.get("approvals").json()["approvals"]
    assert (shown["id"], shown["title"]) == (str(run.steps.get().pk), "Pay?")
    assert shown["open"]
    wrong = {"decision": "approve", "data": {"amount": 1000}}
    found = problem(program.post(place(run), wrong), 422, "invalid")
    assert [one["at"] for one in found["errors"]] == ["data.amount"]
    right = {"decision": "approve", "data": {"amount": 7}, "note": "fine"}
    assert "approved by ann" in program.post(place(run), right).json()["verdict"]
    problem(program.post(place(run), right), 409, "refused")
    assert program.get("approvals").json() == {"approvals": []}
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"amount": 7}


def test_session_rejects_with_a_note(kit: Any, run: Run, manager: User) -> None:
    person = person_of(manager)
    refusal = problem(person.post(place(run), {"decision": "reject"}), 422, "invalid")
    assert "a note" in refusal["detail"]
    assert [one["at"] for one in refusal["errors"]] == ["note"]
    body = {"decision": "reject", "note": "too much"}
    assert person.post(place(run), body).status_code == 200
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.error["message"] == "Rejected by ann: too much"


def test_scope_and_permission_are_both_needed(run: Run, manager: User) -> None:
    body = {"decision": "reject", "note": "no"}
    others = program_of(manager, *(one for one in EVERY if one != SCOPE))
    for response in (others.get("approvals"), others.post(place(run), body)):
        assert SCOPE in problem(response, 403, "forbidden")["detail"]
    eve = program_of(User.objects.create_user("eve"), SCOPE)
    assert eve.get("approvals").json() == {"approvals": []}
    problem(eve.post(place(run), body), 403, "forbidden")
    unknown = "approvals/00000000-0000-7000-8000-000000000000/decide"
    problem(eve.post(unknown, body), 404, "not-found")
    assert run.steps.get().status == "waiting"
