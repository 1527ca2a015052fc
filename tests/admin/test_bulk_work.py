"""Many runs at once, from the list: selected, confirmed, started once, and followed."""

from __future__ import annotations

import re
import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.admin import RunAdmin
from durable_jobs.control import bulk
from durable_jobs.models import Run
from tests.admin.conftest import Page, list_of, make_runs, page_of

pytestmark = pytest.mark.django_db

BULK = reverse("admin:durable_jobs_bulk")
ALL = {"select_across": "1"}


@pytest.fixture
def kit(durable_kit):
    """Return the kit with the function of the runs."""

    @durable.function(id="tests.made")
    def made(ctx):
        ctx.step.sleep("nap", "1h")

    return durable_kit


@pytest.fixture
def ann(operator):
    """Log in a user who may cancel and redrive runs."""
    return operator("view_run", "cancel_run", "redrive_run", "view_payload")


def ask(client, action, runs=(), query="", **more):
    """Select an action for runs of the list."""
    chosen = {"action": f"{action}_runs", "index": "0", "select_across": "0", **more}
    chosen["_selected_action"] = [str(run.pk) for run in runs]
    return client.post(list_of("run") + query, chosen)


def form(response):
    """Return the data that the confirmation posts."""
    assert response.status_code == 200
    page = Page(response.content.decode())
    return {
        attrs["name"]: attrs.get("value", "")
        for tag, attrs in page.tags
        if tag == "input" and attrs.get("name") in ("action", "filter", "key", "reason")
    }


def statuses():
    rows = Run.objects.filter(function="tests.made").order_by("pk")
    return list(rows.values_list("status", flat=True))


def waiting(count):
    return make_runs(count, status="waiting", ended_at=None, output=None)


def test_selection_is_confirmed_and_done_in_the_background(kit, ann):
    first, _second, third = waiting(3)
    asked = ask(ann, "cancel", [first, third])
    assert "Cancel 2 runs" in Page(asked.content.decode()).text
    assert statuses() == ["waiting"] * 3, "nothing is done before it is confirmed"
    response = ann.post(BULK, {**form(asked), "reason": "a mistake"}, follow=True)
    run = Run.objects.get(function=bulk.FUNCTION)
    assert response.redirect_chain == [(page_of(run), 302)]
    told = [str(one) for one in response.context["messages"]]
    assert told == ["Cancel 2 runs. This page shows the progress."]
    kit.run_until_idle()
    assert statuses() == ["cancelled", "waiting", "cancelled"]
    first.refresh_from_db()
    assert first.reason == "a mistake"
    run.refresh_from_db()
    assert run.output["done"] == 2
    assert LogEntry.objects.count() == 3


def test_whole_filter_reaches_beyond_the_shown_page(kit, ann):
    make_runs(60, status="failed")
    make_runs(2)
    shown = Run.objects.filter(status="failed").first()
    asked = ask(ann, "redrive", [shown], "?status=failed", **ALL)
    text = Page(asked.content.decode()).text
    assert "Redrive 60 runs" in text
    assert "status: Failed" in text
    ann.post(BULK, form(asked))
    kit.run_until_idle()
    assert statuses() == ["waiting"] * 60 + ["completed"] * 2


def test_search_is_part_of_the_whole_filter(kit, ann):
    wanted = make_runs(2, status="failed", key="k 1")
    make_runs(3, status="failed")
    asked = ask(ann, "redrive", wanted[:1], "?q=k+1&status=failed", **ALL)
    assert "Redrive 2 runs" in Page(asked.content.decode()).text
    ann.post(BULK, form(asked))
    kit.run_until_idle()
    assert statuses().count("waiting") == 2


def test_form_posted_twice_begins_one_action(kit, ann):
    sent = form(ask(ann, "cancel", waiting(2)))
    first = ann.post(BULK, {**sent, "reason": "one"})
    again = ann.post(BULK, {**sent, "reason": "two"})
    assert first["Location"] == again["Location"]
    kit.run_until_idle()
    assert ann.post(BULK, sent)["Location"] == first["Location"]
    assert Run.objects.filter(function=bulk.FUNCTION).count() == 1


def test_actions_are_shown_to_users_who_may(operator):
    make_runs(1)
    actions = {f"{name}_runs" for name in bulk.BULK}
    for name in bulk.BULK:
        client = operator("view_run", f"{name}_run", username=name)
        page = Page(client.get(list_of("run")).content.decode())
        offered = {
            attrs["value"]
            for tag, attrs in page.tags
            if tag == "option" and (attrs.get("value") or "") in actions
        }
        assert offered == {f"{name}_runs"}
    nobody = operator("view_run", username="nobody")
    assert "_selected_action" not in nobody.get(list_of("run")).content.decode()


def test_hidden_action_cannot_be_posted(kit, operator, ann):
    runs = waiting(1)
    viewer = operator("view_run", username="viewer")
    assert not ask(viewer, "cancel", runs).context["messages"]  # the list, again
    asked = ask(ann, "rerun", runs)
    assert b"No action selected" in ann.get(asked["Location"]).content
    sent = form(ask(ann, "cancel", runs))
    assert viewer.post(BULK, sent).status_code == 403
    assert ann.post(BULK, {**sent, "action": "rerun"}).status_code == 403
    stranger = operator("cancel_run", username="stranger")
    assert stranger.post(BULK, sent).status_code == 403
    assert not Run.objects.filter(function=bulk.FUNCTION).exists()


def test_payloads_cannot_be_probed_by_bulk_work(kit, operator):
    waiting(1)
    client = operator("view_run", "cancel_run")
    sent = {"action": "cancel", "key": "0b0f3c1c-8d7e-4b1a-9f40-2f6f2a4f6a11"}
    response = client.post(BULK, {**sent, "filter": "where=data.a%3D1"}, follow=True)
    assert "you may not see them" in response.content.decode()
    assert not Run.objects.filter(function=bulk.FUNCTION).exists()


def test_get_starts_nothing(ann):
    assert ann.get(BULK).status_code == 405
    make_runs(1, status="waiting", ended_at=None)
    address = f"{list_of('run')}?action=cancel_runs"
    assert ann.get(address).status_code == 400
    assert not Run.objects.filter(function=bulk.FUNCTION).exists()


def test_form_of_another_site_is_refused(kit, ann):
    sent = form(ask(ann, "cancel", waiting(1)))
    ann.handler.enforce_csrf_checks = True
    assert ann.post(BULK, sent).status_code == 403
    assert not Run.objects.filter(function=bulk.FUNCTION).exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"action": ""},
        {"action": "edit"},
        {"action": "__class__"},
        {"key": ""},
        {"key": "x" * 300},
        {"filter": "nonsense=1"},
        {"filter": "id=7"},
        {"filter": "%00"},
        {"filter": "status=queued"},
    ],
)
def test_tampered_form_does_nothing(kit, ann, changed):
    sent = form(ask(ann, "cancel", waiting(1)))
    response = ann.post(BULK, {**sent, **changed}, follow=True)
    assert response.redirect_chain == [(list_of("run"), 302)]
    assert response.context["messages"]
    assert not Run.objects.filter(function=bulk.FUNCTION).exists()


def test_reason_may_be_any_text(kit, ann):
    sent = form(ask(ann, "cancel", waiting(1)))
    assert ann.post(BULK, {**sent, "reason": "a\x00b" + "x" * 5000}).status_code == 302
    kit.run_until_idle()
    assert statuses() == ["cancelled"]


@pytest.mark.parametrize("chosen", [["x"], ["'; --"], ["7"] * 1200])
def test_selection_of_no_runs_is_a_message(ann, chosen):
    make_runs(1)
    sent = {"action": "cancel_runs", "index": "0", "_selected_action": chosen}
    response = ann.post(list_of("run"), sent)
    assert response.status_code in (200, 302, 400)
    assert b"in the background" not in response.content


def test_deleted_runs_are_a_message(kit, ann):
    runs = waiting(2)
    sent = form(ask(ann, "cancel", runs))
    Run.objects.all().delete()
    response = ann.post(BULK, sent, follow=True)
    assert b"No run matches the filter" in response.content
    response = ask(ann, "cancel", runs)
    assert response.status_code == 302


def test_selection_beyond_the_maximum_is_refused(kit, ann, monkeypatch):
    monkeypatch.setattr(bulk, "MOST", 3)
    runs = waiting(5)
    asked = ask(ann, "cancel", runs[:1], "?period=day", **ALL)
    assert (
        "More than 3 runs match, which is the maximum"
        in Page(asked.content.decode()).text
    )
    assert "action" not in form(asked)


def test_count_beyond_the_cap_is_shown_as_such(ann, monkeypatch):
    monkeypatch.setattr("durable_jobs.admin.paging.MOST", 60)
    make_runs(70)
    page = Page(ann.get(list_of("run")).content.decode())
    assert "Select all 60+ runs" in page.text
    assert re.search(r"60\+ runs", page.text)


def test_confirmation_escapes_its_values(ann):
    runs = make_runs(1, queue="<script>x</script>")
    asked = ask(ann, "cancel", runs, "?queue=%3Cscript%3Ex%3C/script%3E", **ALL)
    assert "<script>x" not in asked.content.decode()
    assert "&lt;script&gt;x" in asked.content.decode()


def test_viewer_of_some_runs_acts_on_no_others(kit, ann, monkeypatch):
    mine, others = waiting(1)[0], waiting(1)[0]
    rows = RunAdmin.get_queryset
    monkeypatch.setattr(
        RunAdmin, "get_queryset", lambda *args: rows(*args).filter(pk=mine.pk)
    )
    whole = form(ask(ann, "cancel", [mine]))
    tampered = {**whole, "filter": f"id={others.pk}", "key": str(uuid.uuid4())}
    for values in (tampered, {**tampered, "filter": "status=waiting"}):
        response = ann.post(reverse("admin:durable_jobs_bulk"), values, follow=True)
        assert "You may not see some of these runs" in response.content.decode()
    kit.run_until_idle()
    assert set(Run.objects.values_list("status", flat=True)) == {"waiting"}
    ann.post(reverse("admin:durable_jobs_bulk"), whole)
    kit.run_until_idle()
    mine.refresh_from_db()
    assert mine.status == "cancelled"
