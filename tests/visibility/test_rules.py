"""The rule for visible runs: where it applies, and what is shown when it fails."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client, override_settings
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.control.actor import Actor
from durable_jobs.durable import send
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import Pause, Run, SavedView, Schedule
from durable_jobs.queries import overview, visibility
from durable_jobs.queries.visibility import Viewer, seen_by, visible_runs
from tests.admin.conftest import list_of, page_of
from tests.visibility import rules
from tests.visibility.conftest import Worlds
from tests.visibility.rules import RULE
from tests.visibility.worlds import World

pytestmark = pytest.mark.django_db

DURABLE_JOBS = {"VISIBLE_RUNS": RULE}
V1 = "/durable/api/v1/"
FAILING = ("raises", "gives_a_list", "gives_nothing", "gives_others")


def rule(name: str) -> dict[str, str]:
    """Return the settings with a rule of the tests."""
    return {"VISIBLE_RUNS": f"{rules.__name__}.{name}"}


def browser(world: World) -> Client:
    """Return the browser of a tenant's user."""
    found = Client()
    found.force_login(world.fresh())
    return found


def post(client: Client, path: str, body: Any) -> Any:
    """Post JSON to the API."""
    return client.post(V1 + path, json.dumps(body), content_type="application/json")


@pytest.mark.parametrize("name", [*FAILING, "is_not_there"])
def test_failing_rule_shows_nothing_and_is_logged(
    name: str, worlds: Worlds, caplog: pytest.LogCaptureFixture
) -> None:
    ours, _ = worlds
    client = browser(ours)
    addresses = [
        list_of("run"),
        list_of("step"),
        page_of(ours.runs["done"]),
        reverse("admin:durable_jobs_overview"),
        reverse("admin:durable_jobs_export") + "?format=csv",
        f"{V1}runs",
        f"{V1}runs/{ours.runs['done'].pk}",
    ]
    with override_settings(DURABLE_JOBS=rule(name)):
        found = {one: client.get(one) for one in addresses}
    assert {one.status_code for one in found.values()} == {403}
    assert not any("canary" in one.content.decode() for one in found.values())
    errors = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert any("The rule VISIBLE_RUNS" in one.getMessage() for one in errors)


def test_rule_does_not_affect_the_login_page() -> None:
    with override_settings(DURABLE_JOBS=rule("raises")):
        response = Client().get(list_of("run"))
    assert response.status_code == 302
    assert "/login/" in response["Location"]


def test_rule_is_a_dotted_path() -> None:
    from durable_jobs.conf import settings

    with (
        override_settings(DURABLE_JOBS={"VISIBLE_RUNS": "visible"}),
        pytest.raises(ConfigurationError, match="expected None or a dotted path"),
    ):
        _ = settings.VISIBLE_RUNS


def test_rule_gets_the_viewer_and_the_interface(
    worlds: Worlds, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = worlds
    asked: list[Viewer] = []

    def remember(who: Viewer, runs: Any) -> Any:
        asked.append(who)
        return rules.raises if who is None else runs

    monkeypatch.setattr(rules, "of_tenant", remember)
    key = {"Authorization": f"Bearer {ours.key_text}"}
    with override_settings(DURABLE_JOBS=DURABLE_JOBS):
        browser(ours).get(list_of("run"))
        Client().get(f"{V1}runs", headers=key)
        Client().get(reverse("durable_jobs:progress", args=[ours.token()]))
    doors = {(one.interface, one.key, str(one.user)) for one in asked}
    assert doors == {
        ("admin", None, "ann"),
        ("api", ours.key.pk, "ann"),
        ("progress", None, "AnonymousUser"),
    }
    assert all(one.request is not None for one in asked)


def test_visibility_without_a_rule_is_complete_and_costs_nothing(
    worlds: Worlds,
) -> None:
    ours, _ = worlds
    who = Viewer(ours.user, "admin")
    every = Run.objects.all()
    assert visible_runs(who, every) is every
    with seen_by(who):
        assert not visibility.is_narrowed()


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_joined_rule_doubles_no_run_and_a_slice_can_be_narrowed(worlds: Worlds) -> None:
    ours, _ = worlds
    with seen_by(Viewer(ours.user, "admin")):
        found = list(visibility.runs().values_list("pk", flat=True))
    assert len(found) == len(set(found))
    assert ours.runs["done"].pk in found
    sliced = {"VISIBLE_RUNS": f"{__name__}.newest"}
    with override_settings(DURABLE_JOBS=sliced), seen_by(Viewer(None, "api")):
        assert visibility.runs().count() == 2
        assert visibility.runs().filter(status="nothing").count() == 0


def newest(who: Viewer, runs: Any) -> Any:
    """Return the two newest runs."""
    return runs.order_by("-pk")[:2]


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_figures_are_counted_from_visible_runs(worlds: Worlds) -> None:
    ours, _ = worlds
    every = overview.overview()
    with seen_by(Viewer(ours.user, "admin")):
        found = overview.overview()
        own = visibility.runs().filter(ended_at__isnull=False).count()
    assert found.periods[0].ended == own
    assert every.periods[0].ended >= 2 * own
    assert sum(one.count for one in found.errors) == 1
    assert sum(one.count for one in every.errors) == 2


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_bulk_run_changes_only_visible_runs(worlds: Worlds) -> None:
    ours, theirs = worlds
    body = {"action": "cancel", "filter": {"status": ["waiting", "queued"]}}
    assert post(browser(ours), "runs/bulk", body).status_code == 202
    ours.kit.run_until_idle()
    ended = Run.objects.filter(status="cancelled")
    names = ("holds", "blocked", "asks", "hears")
    assert {run.pk for run in ended} == {ours.runs[name].pk for name in names}
    hidden = {"action": "cancel", "filter": {"id": str(theirs.runs["hears"].pk)}}
    assert post(browser(ours), "runs/bulk", hidden).status_code == 409


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_bulk_run_follows_the_rule_of_the_moment(worlds: Worlds) -> None:
    ours, _ = worlds
    body = {"action": "cancel", "filter": {"status": "waiting"}}
    assert post(browser(ours), "runs/bulk", body).status_code == 202
    ours.order.tenant.orders.all().delete()
    ours.kit.run_until_idle()
    assert not Run.objects.filter(status="cancelled").exists()


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_key_of_a_hidden_run_is_taken_without_details(worlds: Worlds) -> None:
    ours, _ = worlds
    client, path = browser(ours), "functions/tests.works/runs"
    body: dict[str, Any] = {"key": "k", "data": {"order": None, "secret": "x"}}
    run = post(client, path, body).json()["id"]  # of no tenant: hidden from both
    for secret in ("x", "y"):
        body["data"] = {"order": None, "secret": secret}
        found = post(client, path, body)
        assert found.status_code == 409
        assert run not in found.content.decode()


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_idempotent_start_reveals_no_hidden_run(worlds: Worlds) -> None:
    ours, theirs = worlds

    @durable.function(id="tests.once", idempotency="event.data.number")
    def once(ctx: durable.Context) -> None:
        return None

    run = once.enqueue({"number": 7, "order": theirs.order})
    written = LogEntry.objects.count()
    body = {"data": {"number": 7}}
    found = post(browser(ours), "functions/tests.once/runs", body)
    assert found.status_code == 409
    assert str(run.pk) not in found.content.decode()
    assert LogEntry.objects.count() == written


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_run_now_of_a_schedule_reveals_no_hidden_run(worlds: Worlds) -> None:
    ours, theirs = worlds
    client, before = browser(ours), Run.objects.count()
    Schedule.objects.filter(pk=theirs.schedule.pk).update(declared=True)
    mine = post(client, f"schedules/{ours.schedule.pk}/run", {}).json()
    other = post(client, f"schedules/{theirs.schedule.pk}/run", {}).json()
    assert (mine["run"] is not None, other["run"]) == (True, None)
    assert Run.objects.count() == before + 2


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_run_of_a_hidden_parent_reveals_no_parent(worlds: Worlds) -> None:
    ours, theirs = worlds
    run, parents = ours.runs["done"], [ours.runs["parent"], theirs.runs["parent"]]
    told = []
    for parent in parents:
        Run.objects.filter(pk=run.pk).update(parent=parent.pk)
        for path in (f"runs/{run.pk}", f"runs/{run.pk}/trace", f"runs?id={run.pk}"):
            text = browser(ours).get(V1 + path).content.decode()
            told.append(str(parent.pk) in text)
    assert told == [True] * 3 + [False] * 3


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_signal_reveals_no_hidden_run(worlds: Worlds) -> None:
    ours, theirs = worlds
    client = browser(ours)
    assert post(client, f"signals/{ours.secret}", {}).json()["run"] is not None
    assert post(client, f"signals/{theirs.secret}", {}).json() == {"run": None}


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_progress_of_a_hidden_run_is_not_found(worlds: Worlds) -> None:
    ours, theirs = worlds
    client = browser(ours)
    for world, status in ((ours, 200), (theirs, 404)):
        for name in ("progress", "progress_fragment"):
            address = reverse(f"durable_jobs:{name}", args=[world.token()])
            assert client.get(address).status_code == status


@override_settings(DURABLE_JOBS=DURABLE_JOBS)
def test_engine_and_managers_see_everything(worlds: Worlds) -> None:
    ours, theirs = worlds
    assert Run.objects.filter(pk=theirs.runs["done"].pk).exists()
    assert send("tests/placed", theirs.data)
    theirs.kit.run_until_idle()
    assert Run.objects.filter(trigger="tests/placed").count() == 3
    assert ours.runs["done"].explain().text


# Payloads are hidden without the permission for payloads


def test_viewers_without_payloads_see_no_messages_keys_titles_or_lines(
    worlds: Worlds, root: Actor
) -> None:
    ours, _ = worlds
    # This test is not about the runs in the viewer's list.
    Run.objects.filter(pk=ours.runs["done"].pk).update(key="")
    Run.objects.filter(reason=ours.secret).update(reason="")
    Pause.objects.update(reason="")
    ours.stored.runs.update(event_id=None)
    SavedView.objects.all().delete()  # one view, deliberately shared with all
    theirs = ours.user
    denied = ("view_payload", "edit_run", "settle_complaint")
    theirs.user_permissions.remove(*theirs.user_permissions.filter(codename__in=denied))
    client, run = browser(ours), ours.runs
    named = ("bulk", "hears")  # a reason and the name of a signal are no payloads
    addresses = [
        *(page_of(one) for name, one in run.items() if name not in named),
        *(page_of(one) for one in (ours.step, ours.asked, ours.limit, ours.pause)),
        *(page_of(one) for one in run["failed"].steps.all()),
        *(list_of(name) for name in ("run", "step", "limit", "pause")),
        reverse("admin:durable_jobs_overview"),
        reverse("admin:durable_jobs_queues"),
        reverse("admin:durable_jobs_functions"),
        reverse("admin:durable_jobs_function", args=["tests.works"]),
        reverse("admin:durable_jobs_function", args=["tests.limited"]),
        reverse("admin:durable_jobs_approvals"),
        reverse("admin:durable_jobs_export") + "?format=csv",
        reverse("admin:durable_jobs_resume", args=[ours.pause.pk]),
        reverse("admin:shop_order_history", args=[ours.order.pk]),
        reverse("admin:durable_jobs_run_history", args=[run["asks"].pk]),
    ]
    found = {}
    for address in addresses:
        response = client.get(address)
        assert response.status_code == 200, address
        text = b"".join(response) if response.streaming else response.content
        shown = text.decode()
        if ours.secret in shown:
            place = shown.index(ours.secret)
            found[address] = shown[max(place - 200, 0) : place + 60]
    assert not found, found
    failed = client.get(page_of(run["failed"])).content.decode()
    assert "ValueError" in failed
    assert "Hidden: you may not see payloads." in failed
    key = f"{reverse('admin:durable_jobs_queues')}?key={ours.secret}"
    assert client.get(key).status_code == 403


def test_history_of_an_instance_names_no_title_of_an_approval(
    worlds: Worlds, root: Actor
) -> None:
    from durable_jobs.control import approval_decisions

    ours, _ = worlds
    approval_decisions.reject(root, ours.runs["asks"], ours.asked.key, "no")
    client = browser(ours)
    for address in (
        reverse("admin:shop_order_history", args=[ours.order.pk]),
        reverse("admin:durable_jobs_run_history", args=[ours.runs["asks"].pk]),
    ):
        shown = client.get(address).content.decode()
        assert "Approval “boss” rejected: no" in shown
        assert ours.secret not in shown
