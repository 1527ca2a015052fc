"""Keys grant only their scopes, until they expire, and are never shown."""

from __future__ import annotations

import hashlib
import io
import json
import re
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.core.management import CommandError, call_command
from django.test import Client, override_settings
from django.urls import reverse

from durable_jobs.control import api_keys
from durable_jobs.control.actor import Actor
from durable_jobs.control.scopes import SCOPES
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import ApiKey, Event, Run
from tests.api.conftest import Caller, problem, program_of, user_with

pytestmark = pytest.mark.django_db

SECRET = "a secret of the settings, long enough"


def bearer(text: str) -> Caller:
    return Caller(headers={"Authorization": f"Bearer {text}"})


def test_refused_credentials_all_get_the_same_response(kit, program):
    good = program()
    unknown = bearer("dj_" + "x" * 43)
    wrong = bearer(good.headers["Authorization"].removeprefix("Bearer ")[:-1] + "!")
    revoked, expired = program(), program(expires_at=kit.now() + timedelta(hours=1))
    gone, inactive = (User.objects.create_superuser(name) for name in ("gone", "away"))
    of_gone, of_inactive = (program_of(u, "runs:read") for u in (gone, inactive))
    assert all(
        caller.get("runs").status_code == 200
        for caller in (good, revoked, expired, of_gone, of_inactive)
    )
    row = ApiKey.objects.get(pk=ApiKey.objects.order_by("pk")[1].pk)
    assert api_keys.revoke(Actor(User.objects.create_superuser("boss")), row, "leaked")
    kit.advance("1h")
    gone.delete()
    User.objects.filter(username="away").update(is_active=False)
    basic = Caller(headers={"Authorization": "Basic dXNlcjpwYXNz"})
    nothing = Caller()
    refused = [unknown, wrong, revoked, expired, of_gone, of_inactive, basic, nothing]
    refused += [bearer(""), bearer("x" * 10_000), bearer("\xe9\xe8")]
    answers = [caller.get("runs") for caller in refused]
    bodies = {json.dumps(problem(one, 401, "unauthorized")) for one in answers}
    assert len(bodies) == 1
    assert {one["WWW-Authenticate"] for one in answers} == {
        'Bearer realm="durable_jobs"'
    }
    assert good.get("runs").status_code == 200


def test_key_is_stored_only_as_a_digest(kit):
    actor = Actor(User.objects.create_superuser("boss"))
    made = api_keys.create(actor, "ci", ["runs:read"])
    assert re.fullmatch(r"dj_[\w-]{43}", made.text)
    row = ApiKey.objects.filter(pk=made.key.pk).values().get()
    assert made.text not in json.dumps(row, default=str)
    assert row["digest"] == hashlib.sha256(made.text.encode()).hexdigest()
    assert made.text.startswith(row["prefix"])
    assert len(row["prefix"]) < 16
    entry = LogEntry.objects.get(object_id=str(made.key.pk))
    assert made.text not in entry.change_message + entry.object_repr
    assert "runs:read" in entry.change_message


def test_wrong_key_is_refused_though_the_session_is_good(kit):
    caller = bearer("dj_wrong")
    caller.client.force_login(User.objects.create_superuser("root"))
    problem(caller.get("runs"), 401, "unauthorized")


def test_key_needs_no_token_against_forged_requests_even_beside_a_session(kit, program):
    caller = program()
    caller.client.force_login(User.objects.create_superuser("root"))
    assert caller.post("events", {"name": "tests/one"}).status_code == 202


def test_last_use_is_written_once_a_minute(kit, program, django_assert_num_queries):
    caller = program("metrics:read")
    problem(caller.get("runs"), 403, "forbidden")
    first = ApiKey.objects.get().used_at
    assert first == kit.now()
    kit.advance("59s")
    caller.get("runs")
    assert ApiKey.objects.get().used_at == first
    kit.advance("2s")
    caller.get("runs")
    assert ApiKey.objects.get().used_at == kit.now()


def test_names_of_events_are_limited_to_the_beginnings_that_a_key_has(kit, program):
    caller = program("events:send", events=["shop/", "crm/order."])
    assert caller.post("events", {"name": "shop/paid"}).status_code == 202
    assert caller.post("events", {"name": "crm/order.paid"}).status_code == 202
    found = problem(caller.post("events", {"name": "crm/user"}), 403, "forbidden")
    assert "crm/user" in found["detail"]
    mixed = [{"name": "shop/one"}, {"name": "hr/two"}]
    problem(caller.post("events", mixed), 403, "forbidden")
    assert not Event.objects.filter(name__in=["shop/one", "hr/two"]).exists()


@override_settings(
    DURABLE_JOBS={"EVENT_KEYS": ["another one, of which is no use", SECRET]}
)
def test_secret_in_the_settings_may_only_send_events(kit):
    caller = bearer(SECRET)
    assert caller.post("events", {"name": "tests/one"}).status_code == 202
    for path in ("runs", "functions", "schedules", "metrics"):
        found = problem(caller.get(path), 403, "forbidden")
        assert "scope" in found["detail"]
    problem(caller.post("signals/go"), 403, "forbidden")
    problem(
        bearer(SECRET[:-1]).post("events", {"name": "tests/x"}), 401, "unauthorized"
    )


@pytest.mark.parametrize(
    ("name", "scopes", "events"),
    [
        ("", ["runs:read"], []),
        ("x" * 101, ["runs:read"], []),
        ("x", [], []),
        ("x", ["runs:everything"], []),
        ("x", ["events:send"], [""]),
    ],
)
def test_key_that_cannot_be_is_not_made(kit, name, scopes, events):
    actor = Actor(User.objects.create_superuser("boss"))
    with pytest.raises(ConfigurationError):
        api_keys.create(actor, name, scopes, events=events)
    assert not ApiKey.objects.exists()


def test_creating_and_revoking_keys_need_permissions(kit):
    nobody = Actor(user_with("view_apikey"))
    with pytest.raises(PermissionDenied):
        api_keys.create(nobody, "x", ["runs:read"])
    made = api_keys.create(Actor(user_with("add_apikey")), "x", ["runs:read"])
    with pytest.raises(PermissionDenied):
        api_keys.revoke(nobody, made.key)
    assert made.key.revoked_at is None
    boss = Actor(user_with("revoke_apikey"))
    assert api_keys.revoke(boss, made.key)
    assert not api_keys.revoke(boss, made.key)


# The command


def command(*words: str) -> str:
    out = io.StringIO()
    call_command("durable_keys", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue().strip()


def test_command_makes_lists_and_revokes(kit):
    User.objects.create_superuser("ci")
    text = command(
        "create", "deploy", "--owner", "ci", "--scope", "events:send",
        "--scope", "runs:read", "--event", "shop/", "--expires", "90d",
    )  # fmt: skip
    assert bearer(text).get("runs").status_code == 200
    problem(bearer(text).post("events", {"name": "hr/x"}), 403, "forbidden")
    (listed,) = json.loads(command("list", "--format", "json"))
    assert listed["name"] == "deploy"
    assert listed["state"] == "active"
    assert listed["scopes"] == ["events:send", "runs:read"]
    assert "text" not in listed
    assert "digest" not in listed
    line = command("list")
    assert "deploy" in line
    assert "owner ci  used" in line
    assert f"expires {listed['expires_at'][:10]}" in line
    assert line.endswith("events:send runs:read  events shop/")
    assert text not in command("list")
    assert "is revoked" in command("revoke", str(listed["id"]), "--reason", "over")
    assert "before" in command("revoke", str(listed["id"]))
    problem(bearer(text).get("runs"), 401, "unauthorized")
    said = LogEntry.objects.latest("pk").change_message
    assert said == "Revoked: over (by manage.py durable_keys)"


def test_command_reports_invalid_arguments(kit):
    with pytest.raises(CommandError, match="no user 'nobody'"):
        command("create", "x", "--owner", "nobody", "--scope", "runs:read")
    with pytest.raises(CommandError, match="no key 7"):
        command("revoke", "7")
    User.objects.create_superuser("ci")
    with pytest.raises(CommandError, match="option --expires"):
        command(
            "create", "x", "--owner", "ci", "--scope", "runs:read", "--expires", "soon"
        )
    made = json.loads(
        command(
            "create", "x", "--owner", "ci", "--scope", "runs:read", "--format", "json"
        )
    )
    assert bearer(made["text"]).get("runs").status_code == 200


# The admin

ADD = "admin:durable_jobs_apikey_add"
LIST = "admin:durable_jobs_apikey_changelist"
VALUES = {
    "name": "deploy", "scopes": ["runs:read"], "events": "", "expires_at": ""
}  # fmt: skip


def login(*permissions: str) -> Client:
    client = Client()
    client.force_login(user_with(*permissions, is_staff=True))
    return client


def test_admin_shows_the_text_of_a_new_key_once(kit):
    client = login("add_apikey", "view_apikey", "view_run")
    assert b"runs:write" in client.get(reverse(ADD)).content
    assert not ApiKey.objects.exists()
    response = client.post(reverse(ADD), VALUES)
    found = re.search(r"dj_[\w-]{43}", response.content.decode())
    assert found is not None
    assert "no-store" in response["Cache-Control"]
    assert bearer(found[0]).get("runs").status_code == 200
    key = ApiKey.objects.get()
    page = reverse("admin:durable_jobs_apikey_change", args=[key.pk])
    for address in (reverse(LIST), page):
        shown = client.get(address).content.decode()
        assert "deploy" in shown
        assert found[0] not in shown
        assert key.digest not in shown


def test_admin_reports_errors_of_a_key(kit):
    client = login("add_apikey")
    wrong = {**VALUES, "scopes": ["everything"]}
    assert client.post(reverse(ADD), wrong).status_code == 200
    past = {**VALUES, "expires_at": "2020-01-01T00:00:00"}
    assert b"in the future" in client.post(reverse(ADD), past).content
    assert not ApiKey.objects.exists()


def test_admin_revokes_by_post_and_permission_and_never_deletes(kit, program):
    program("runs:read")
    key = ApiKey.objects.get()
    chosen = {"action": "revoke", "_selected_action": [key.pk]}
    login("view_apikey").post(reverse(LIST), chosen)
    key.refresh_from_db()
    assert key.revoked_at is None
    client = login("view_apikey", "revoke_apikey")
    client.get(reverse(LIST), chosen)
    key.refresh_from_db()
    assert key.revoked_at is None
    client.post(reverse(LIST), chosen)
    key.refresh_from_db()
    assert key.revoked_at == kit.now()
    delete = reverse("admin:durable_jobs_apikey_delete", args=[key.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    page = reverse("admin:durable_jobs_apikey_change", args=[key.pk])
    assert client.post(page, {"name": "other"}).status_code == 403
    assert login("view_run").get(reverse(LIST)).status_code == 403
    assert login("view_apikey").post(reverse(ADD), VALUES).status_code == 403


def test_list_of_keys_takes_the_same_queries_for_many(
    kit, program, django_assert_max_num_queries
):
    client = login("view_apikey")
    program("runs:read")
    client.get(reverse(LIST))
    for _ in range(5):
        program("runs:read")
    with django_assert_max_num_queries(12):
        client.get(reverse(LIST))


def test_scopes_require_existing_permissions(db):
    from django.contrib.auth.models import Permission

    known = set(Permission.objects.values_list("codename", flat=True))
    for permissions in SCOPES.values():
        assert permissions <= known
    assert not Run.objects.exists()
