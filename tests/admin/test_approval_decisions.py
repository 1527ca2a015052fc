"""Deciding an approval: once, with permission, with the form's data."""

from __future__ import annotations

import threading

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from durable_jobs import durable
from durable_jobs.control import approval_decisions, run_actions
from durable_jobs.control.actor import Actor
from durable_jobs.models import Run
from tests.admin.approving import (
    INBOX,
    PayForm,
    outcome,
    place_of,
    show,
)
from tests.admin.conftest import Page, page_of
from tests.lab.threads import together

pytestmark = pytest.mark.django_db


# Deciding


def test_approval_gives_the_run_the_cleaned_data(ask, login, durable_kit):
    run = ask(form=PayForm)
    client = login("change_order")
    response = client.post(
        place_of(run),
        {"_approve": "1", "amount": "7.50", "reason": "late"},
        follow=True,
    )
    assert response.redirect_chain == [(INBOX, 302)]
    page = Page(response.content.decode())
    assert "“Pay 7” was approved." in page.text
    assert place_of(run) not in page.links()
    assert outcome(durable_kit, run) == {"amount": "7.50", "reason": "late"}
    entry = LogEntry.objects.get(object_id=str(run.pk))
    assert entry.user.username == "ann"
    assert entry.get_change_message() == "Approval “may we” approved."


def test_approval_without_a_form_needs_only_a_button(ask, login, durable_kit):
    run = ask()
    login("change_order").post(place_of(run), {"_approve": "Approve"})
    assert outcome(durable_kit, run) == {}


def test_invalid_form_is_shown_again_with_its_errors_and_input(ask, login):
    run = ask(form=PayForm)
    client = login("change_order")
    data = {"_approve": "1", "amount": "101", "reason": "kept"}
    response = client.post(place_of(run), data)
    page = Page(response.content.decode())
    assert response.status_code == 422
    assert "Please correct the errors below." in page.text
    assert "less than or equal to 100" in page.text
    values = {attrs.get("id"): attrs.get("value") for _, attrs in page.tags}
    assert (values["id_amount"], values["id_reason"]) == ("101", "kept")
    assert run.steps.get().status == "waiting"
    assert not LogEntry.objects.exists()


def test_rejection_needs_a_reason(ask, login, durable_kit):
    run = ask(form=PayForm)
    client = login("change_order")
    response = client.post(place_of(run), {"_reject": "1", "reason": " "})
    assert "This field is required." in Page(response.content.decode()).text
    assert run.steps.get().status == "waiting"
    client.post(place_of(run), {"_reject": "1", "reason": "too much"})
    ann = User.objects.get(username="ann")
    assert outcome(durable_kit, run) == f"{ann.pk}: too much"
    entry = LogEntry.objects.get(object_id=str(run.pk))
    assert entry.get_change_message() == "Approval “may we” rejected: too much"


@pytest.mark.parametrize("data", [{}, {"reason": "no"}, {"amount": "1"}])
def test_post_without_a_button_decides_nothing(ask, login, data):
    run = ask(form=PayForm)
    assert login("change_order").post(place_of(run), data).status_code == 422
    assert run.steps.get().status == "waiting"


def test_get_decides_nothing(ask, login):
    run = ask()
    client = login("change_order")
    for button in ("_approve", "_reject"):
        client.get(place_of(run), {button: "1", "reason": "no"})
    assert run.steps.get().status == "waiting"


def test_decision_needs_the_token_of_the_page(ask, login):
    run = ask()
    client = login("change_order")
    client.handler.enforce_csrf_checks = True
    assert client.post(place_of(run), {"_approve": "1"}).status_code == 403
    token = show(client, place_of(run))
    values = [
        a["value"] for _, a in token.tags if a.get("name") == "csrfmiddlewaretoken"
    ]
    data = {"_approve": "1", "csrfmiddlewaretoken": values[0]}
    assert client.post(place_of(run), data).status_code == 302
    assert run.steps.get().status == "completed"


def test_pages_show_the_decider(ask, login, durable_kit):
    client = login("change_order", "view_run", "view_step")
    for button, said in (
        ("_approve", "approved by ann"),
        ("_reject", "rejected by ann"),
    ):
        run = ask()
        client.post(place_of(run), {button: "1", "reason": "no"})
        durable_kit.run_until_idle()
        for address in (page_of(run), page_of(run.steps.get())):
            assert said in show(client, address).text, address


def test_permission_to_answer_waits_is_not_enough_to_decide(ask, login):
    run = ask()
    key = run.steps.get().key
    login("view_run", "view_payload", "answer_run")
    actor = Actor(User.objects.get(username="ann"))
    with pytest.raises(durable.ActionNotAllowed):
        run_actions.act(actor, "answer", run, step=key, value={})
    assert run.steps.get().status == "waiting"


# Too late


def too_late(client: Client, run: Run, text: str) -> None:
    """Check that viewing and deciding only show a message."""
    address = place_of(run)
    for respond in (
        lambda: client.get(address, follow=True),
        lambda: client.post(address, {"_approve": "1"}, follow=True),
        lambda: client.post(address, {"_reject": "1", "reason": "no"}, follow=True),
    ):
        response = respond()
        assert response.redirect_chain == [(INBOX, 302)]
        assert text in Page(response.content.decode()).text


def test_second_decision_learns_of_the_first(ask, login):
    run = ask()
    login("change_order", name="first").post(place_of(run), {"_approve": "1"})
    too_late(login("change_order"), run, "already approved by first")
    assert LogEntry.objects.filter(object_id=str(run.pk)).count() == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_decisions_have_one_winner_whom_the_other_learns(
    ask, login, monkeypatch
):
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer: races are tested on the database of record")
    run, both, settle = ask(), threading.Barrier(2), approval_decisions.settle

    def settling(*args):
        both.wait(30)  # neither has seen the other
        settle(*args)

    monkeypatch.setattr(approval_decisions, "settle", settling)
    ann, bob = (login("change_order", name=name) for name in ("ann", "bob"))
    address = place_of(run)
    came = together(
        lambda: ann.post(address, {"_approve": "1"}, follow=True),
        lambda: bob.post(address, {"_reject": "1", "reason": "no"}, follow=True),
    )
    texts = [Page(response.content.decode()).text for response in came]
    step = run.steps.get()
    decision, winner = step.detail["decision"], step.detail["name"]
    assert sorted(f"This was already {decision} by {winner}." in t for t in texts) == [
        False,
        True,
    ]
    assert sum(f"“Pay 7” was {decision}." in text for text in texts) == 1
    assert LogEntry.objects.get(object_id=str(run.pk)).user.username == winner


def test_approval_of_a_cancelled_run_is_a_message(ask, login):
    run = ask()
    run.cancel()
    too_late(login("change_order"), run, "The approval was cancelled")


def test_approval_after_its_timeout_is_a_message(ask, login, durable_kit):
    run = ask(timeout="1h")
    durable_kit.advance("1h")
    too_late(login("change_order"), run, "The approval timed out")


def test_missing_approval_is_not_found(ask, login, admin_client):
    run = ask()
    address = place_of(run)
    other = ask("Other")
    places = [
        address.replace(str(run.pk), "00000000-0000-7000-8000-000000000000"),
        address.replace(run.steps.get().key, "0" * 40),
        f"{INBOX}nonsense/{run.steps.get().key}/",
        f"{INBOX}{run.pk}/",
    ]
    for place in places:
        assert admin_client.get(place, follow=True).status_code == 404, place
    for place in places[:2]:
        assert admin_client.post(place, {"_approve": "1"}).status_code == 404
    Run.objects.filter(pk=other.pk)._raw_delete("default")
    assert "Other" not in show(admin_client).text
    assert admin_client.get(place_of(run)).status_code == 200


def test_removed_form_can_only_be_rejected(ask, login, durable_kit, monkeypatch):
    run = ask(form=PayForm)
    monkeypatch.delattr("tests.admin.approving.PayForm")
    client = login("change_order")
    for respond, status in (
        (lambda: client.get(place_of(run)), 200),
        (lambda: client.post(place_of(run), {"_approve": "1", "amount": "1"}), 422),
    ):
        response = respond()
        page = Page(response.content.decode())
        assert response.status_code == status
        assert "so you cannot approve now" in page.text
        assert "tests.admin.approving has no such class" in page.text
        assert not [a for _, a in page.tags if a.get("name") == "_approve"]
    client.post(place_of(run), {"_reject": "1", "reason": "gone"})
    assert str(outcome(durable_kit, run)).endswith(": gone")
