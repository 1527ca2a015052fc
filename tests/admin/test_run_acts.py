"""Actions on a run from its page, and live updates."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from durable_jobs import durable, ids
from durable_jobs.admin.runs.views import STOP_POLLING
from durable_jobs.control.run_actions import ACTIONS
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from tests.admin.conftest import Page, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db

LIVE = {"HX-Request": "true"}


def act_url(run: Run, action: str) -> str:
    return reverse("admin:durable_jobs_run_act", args=[run.pk, action])


def member(*names: str) -> Client:
    user = User.objects.create_user("ann", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(
            codename__in=["view_run", *names], content_type__app_label="durable_jobs"
        )
    )
    client = Client()
    client.force_login(user)
    return client


def waiting(kit: Kit) -> Run:
    @durable.function(id="tests.waiter")
    def waiter(ctx):
        ctx.step.run("first", lambda: {"secret": "plum"})
        event = ctx.step.wait_for_event("wait", "shop/paid", timeout="1d")
        return event and event.data

    run = waiter.enqueue({"n": 1, "secret": "pear"})
    kit.run_until_idle()
    run.refresh_from_db()
    return run


def buttons(client: Client, run: Run) -> set[str]:
    page = Page(client.get(page_of(run)).content.decode())
    return {
        link.rstrip("/").rpartition("/")[2]
        for link in page.links("/act/")
        if "step=" not in link
    }


# Permissions


@pytest.mark.parametrize("action", ACTIONS)
def test_user_without_permission_sees_no_button_and_is_refused(
    action: str, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    client = member(*(f"{one}_run" for one in ACTIONS if one != action))
    assert action not in buttons(client, run)
    assert client.get(act_url(run, action)).status_code == 403
    assert client.post(act_url(run, action), {"reason": "x"}).status_code == 403
    assert not LogEntry.objects.exists()


def test_each_sees_the_buttons_of_his_rights_that_fit_the_state(
    durable_kit: Kit,
) -> None:
    run = waiting(durable_kit)
    client = member("cancel_run", "pause_run", "resume_run", "wake_run", "redrive_run")
    assert buttons(client, run) == {"cancel", "pause"}
    run.pause()
    assert buttons(client, run) == {"cancel", "resume"}
    run.cancel()
    assert buttons(client, run) == {"redrive"}


def test_user_with_the_action_but_without_view_is_refused(durable_kit: Kit) -> None:
    run, user = waiting(durable_kit), User.objects.create_user("bob", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename="cancel_run"))
    client = Client()
    client.force_login(user)
    assert client.post(act_url(run, "cancel"), {}).status_code == 403
    run.refresh_from_db()
    assert run.is_live


def test_get_changes_nothing_and_a_form_needs_its_token(
    admin_client: Client, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    for action in ACTIONS:
        assert admin_client.get(act_url(run, action)).status_code == 200
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="root"))
    assert strict.post(act_url(run, "cancel"), {}).status_code == 403
    run.refresh_from_db()
    assert run.status == "waiting"
    assert Run.objects.count() == 1


# Effects


def test_reason_is_requested_and_stored(admin_client: Client, durable_kit: Kit) -> None:
    run = waiting(durable_kit)
    response = admin_client.post(
        act_url(run, "cancel"), {"reason": "gateway was down"}, follow=True
    )
    assert response.redirect_chain == [(page_of(run), 302)]
    page = Page(response.content.decode())
    assert "was cancelled" in page.text
    assert "gateway was down" in page.text
    assert LogEntry.objects.get().change_message == "Run cancelled: gateway was down"


def test_late_click_gets_a_message_and_changes_nothing(
    admin_client: Client, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    run.cancel("by somebody else")
    response = admin_client.post(act_url(run, "cancel"), {}, follow=True)
    assert "This action changed nothing" in response.content.decode()
    page = Page(admin_client.get(act_url(run, "cancel")).content.decode())
    assert "so this action no longer applies" in page.text
    assert "vTextField" not in page.source
    assert not LogEntry.objects.exists()


def test_missing_run_is_not_found(admin_client: Client, durable_kit: Kit) -> None:
    run = waiting(durable_kit)
    assert admin_client.get(act_url(run, "fly")).status_code == 404
    gone = Run(pk=uuid.uuid4())
    for action in ACTIONS:
        assert admin_client.post(act_url(gone, action), {}).status_code == 404
    for name in ("document", "test"):
        url = reverse(f"admin:durable_jobs_run_{name}", args=[gone.pk])
        assert admin_client.get(url).status_code == 404


def form(client: Client, run: Run, action: str) -> dict[str, Any]:
    page = Page(client.get(act_url(run, action)).content.decode())
    return {
        attrs["name"]: attrs.get("value") or ""
        for tag, attrs in page.tags
        if tag == "input" and attrs.get("name") not in (None, "csrfmiddlewaretoken")
    }


def test_form_that_is_sent_twice_reruns_once(
    admin_client: Client, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    values = form(admin_client, run, "rerun")
    for _ in range(2):
        admin_client.post(act_url(run, "rerun"), {**values, "from_step": ""})
    assert Run.objects.count() == 2


def test_run_is_rerun_from_a_step_with_other_data(
    admin_client: Client, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    values = form(admin_client, run, "edit")
    values |= {"from_step": ids.step_key("wait"), "input": '{"n": 2}'}
    response = admin_client.post(act_url(run, "edit"), values)
    new = Run.objects.exclude(pk=run.pk).get()
    assert response["Location"] == page_of(new)
    assert new.data == {"n": 2}
    assert [step.name for step in new.steps.all()] == ["first"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ('{"n": NaN}', "NaN is not allowed"),
        ('{"n": 1, "n": 2}', "twice in one object"),
        ('{"n": "\\u0000"}', "NUL"),
        ("[" * 200_000, "too deep"),
        ("7", "dict"),
        ('{"$": "model", "v": ["shop.order", 999]}', ""),
    ],
)
def test_invalid_data_is_shown_again_with_its_error(
    text: str, says: str, admin_client: Client, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    values = {**form(admin_client, run, "edit"), "from_step": "", "input": text}
    response = admin_client.post(act_url(run, "edit"), values, follow=True)
    assert response.status_code in (200, 422)
    assert says in response.content.decode().replace("&quot;", '"')
    if response.status_code == 422:
        assert Run.objects.count() == 1


def test_wait_is_answered_from_its_row(admin_client: Client, durable_kit: Kit) -> None:
    run = waiting(durable_kit)
    page = Page(admin_client.get(page_of(run)).content.decode())
    (url,) = set(page.links("/act/answer/"))
    asked = Page(admin_client.get(url).content.decode())
    assert "wait" in asked.text
    key = ids.step_key("wait")
    admin_client.post(
        url, {"step": key, "value": '{"paid": true}', "reason": "by hand"}
    )
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"paid": True}


# Hidden payloads


def test_payloads_need_their_permission(durable_kit: Kit) -> None:
    run = waiting(durable_kit)
    step = run.steps.get(name="first")
    client = member("view_step", "edit_run", "rerun_run")
    for row in (run, step):
        text = client.get(page_of(row)).content.decode()
        assert "plum" not in text
        assert "pear" not in text
        assert "Hidden" in text
    assert client.get(act_url(run, "edit")).status_code == 403
    for name in ("document", "test"):
        url = reverse(f"admin:durable_jobs_run_{name}", args=[run.pk])
        assert client.get(url).status_code == 403
    assert "JSON" not in client.get(page_of(run)).content.decode()


# Live updates


def looked(client: Client, run: Run) -> tuple[str, str]:
    page = Page(client.get(page_of(run)).content.decode())
    asked = [attrs for _, attrs in page.tags if "data-durable-live" in attrs]
    (live,) = asked or [{}]
    return live.get("hx-get") or "", live.get("hx-trigger") or ""


def test_unchanged_page_gets_a_cheap_response(
    admin_client: Client, durable_kit: Kit, django_assert_max_num_queries: Any
) -> None:
    run = waiting(durable_kit)
    seen, _ = looked(admin_client, run)
    with django_assert_max_num_queries(4):  # the session and the viewer are two of them
        response = admin_client.get(page_of(run) + seen, headers=LIVE)
    assert (response.status_code, response.content) == (204, b"")
    durable.send("shop/paid", {})
    durable_kit.run_until_idle()
    response = admin_client.get(page_of(run) + seen, headers=LIVE)
    assert response.status_code == STOP_POLLING
    assert b"durable-live" in response.content


def test_change_of_a_run_updates_its_page(
    admin_client: Client, durable_kit: Kit
) -> None:
    @durable.function(id="tests.steps")
    def steps(ctx):
        ctx.step.sleep("nap", "1h")
        ctx.step.run("work", lambda: 1)
        ctx.step.sleep("nap again", "1h")

    run = steps.enqueue()
    versions = []
    for _ in range(3):
        versions.append(looked(admin_client, run)[0])
        durable_kit.run_until_idle()
        versions.append(looked(admin_client, run)[0])
        durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.status == "completed"
    assert looked(admin_client, run) == ("", "")
    assert len({one for one in versions if one}) == 3


def test_idle_run_is_polled_less_often(admin_client: Client, durable_kit: Kit) -> None:
    run = waiting(durable_kit)
    assert looked(admin_client, run)[1] == "every 3s"
    run.pause()
    assert looked(admin_client, run)[1] == "every 15s"


def test_polling_needs_the_permission_to_view_the_run(
    viewer: Any, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    response = viewer("event").get(page_of(run) + "?seen=x", headers=LIVE)
    assert response.status_code == 403
    for odd in ("nonsense", str(uuid.uuid4())):
        url = reverse("admin:durable_jobs_run_change", args=[odd])
        found = viewer_of(viewer).get(url + "?seen=x", headers=LIVE)
        assert found.status_code in (302, 404)


def viewer_of(viewer: Any) -> Client:
    User.objects.filter(username="viewer").delete()
    client: Client = viewer("run")
    return client


# Downloads


def test_run_can_be_downloaded_as_a_file(
    admin_client: Client, durable_kit: Kit
) -> None:
    run = waiting(durable_kit)
    url = reverse("admin:durable_jobs_run_document", args=[run.pk])
    response = admin_client.get(url)
    assert response["Content-Disposition"].startswith("attachment;")
    document = json.loads(response.content)
    assert document["data"] == {"n": 1, "secret": "pear"}
    assert [step["name"] for step in document["steps"]] == ["first", "wait"]


def test_run_can_be_downloaded_as_a_passing_test(
    admin_client: Client, durable_kit: Kit
) -> None:
    calls: list[str] = []

    @durable.function(id="tests.at-home")
    def at_home(ctx):
        ctx.step.run("quote'\"\\", lambda: calls.append("called") or "ü\n")
        return ctx.step.run("end", lambda: len(calls))

    run = at_home.enqueue({"text": 'a "quoted" \\ back'})
    durable_kit.run_until_idle()
    url = reverse("admin:durable_jobs_run_test", args=[run.pk])
    page = admin_client.get(url)
    text = page.context["text"]
    names: dict[str, Any] = {}
    exec(compile(text, "test_home", "exec"), names)  # noqa: S102  # the case under test
    test = next(value for name, value in names.items() if name.startswith("test_"))
    test(durable_kit)
    assert calls == ["called"]
    assert Run.objects.count() == 2


def test_history_that_is_too_large_for_a_test_is_offered_as_a_file(
    admin_client: Client,
) -> None:
    run = make_runs(1)[0]
    make_steps(run, 120)
    url = reverse("admin:durable_jobs_run_test", args=[run.pk])
    assert "too large" in admin_client.get(url).content.decode()


def test_overview_leads_each_viewer_to_lists_that_he_may_see(
    admin_client: Client,
) -> None:
    make_runs(2, status="failed", error={"type": "KeyError", "message": "m"})
    overview = reverse("admin:durable_jobs_overview")
    for client in (admin_client, member()):
        page = Page(client.get(overview).content.decode())
        failed = set(page.links("status=failed"))
        assert len(failed) == 4  # of the error, and of each period
        for address in failed:
            assert client.get(address).status_code == 200, address
