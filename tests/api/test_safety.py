"""Methods, forged requests, transactions: the guarantees of all endpoints."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncClient, Client, override_settings
from django.urls import URLPattern, get_resolver

from durable_jobs.models import Event
from tests.api.conftest import V1, Caller, person_of, problem
from tests.api.endpoints import ENDPOINTS, furnish
from tests.api.test_permissions import state

pytestmark = pytest.mark.django_db

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def patterns(resolver, before=""):
    for one in resolver.url_patterns:
        path = before + str(one.pattern)
        if isinstance(one, URLPattern):
            yield path, one.callback
        else:
            yield from patterns(one, path)


#: Views without Django's own CSRF check. Webhooks and callbacks ignore cookies. The
#: other views check themselves when a cookie authenticates the request
#: (``test_permissions``).
EXEMPT = [
    "durable/api/v1/",
    "durable/api/v1/approvals",
    "durable/api/v1/approvals/<uuidstr:approval_id>/decide",
    "durable/api/v1/callbacks/<token>/fail",
    "durable/api/v1/callbacks/<token>/heartbeat",
    "durable/api/v1/callbacks/<token>/succeed",
    "durable/api/v1/events",
    "durable/api/v1/functions",
    "durable/api/v1/functions/<function_id>",
    "durable/api/v1/functions/<function_id>/runs",
    "durable/api/v1/health",
    "durable/api/v1/metrics",
    "durable/api/v1/ready",
    "durable/api/v1/runs",
    "durable/api/v1/runs/<uuidstr:run_id>",
    "durable/api/v1/runs/<uuidstr:run_id>/answer",
    "durable/api/v1/runs/<uuidstr:run_id>/cancel",
    "durable/api/v1/runs/<uuidstr:run_id>/pause",
    "durable/api/v1/runs/<uuidstr:run_id>/redrive",
    "durable/api/v1/runs/<uuidstr:run_id>/rerun",
    "durable/api/v1/runs/<uuidstr:run_id>/result",
    "durable/api/v1/runs/<uuidstr:run_id>/resume",
    "durable/api/v1/runs/<uuidstr:run_id>/retry",
    "durable/api/v1/runs/<uuidstr:run_id>/steps",
    "durable/api/v1/runs/<uuidstr:run_id>/steps/<key>",
    "durable/api/v1/runs/<uuidstr:run_id>/trace",
    "durable/api/v1/runs/<uuidstr:run_id>/wake",
    "durable/api/v1/runs/bulk",
    "durable/api/v1/schedules",
    "durable/api/v1/schedules/<int:schedule_id>/pause",
    "durable/api/v1/schedules/<int:schedule_id>/resume",
    "durable/api/v1/schedules/<int:schedule_id>/run",
    "durable/api/v1/signals/<path:name>",
    "durable/webhooks/<path:path>",
]


def test_exemptions_from_djangos_csrf_check_are_exactly_these():
    found = {
        path
        for path, view in patterns(get_resolver())
        if getattr(view, "csrf_exempt", False)
    }
    assert sorted(found) == EXEMPT


def test_other_methods_are_refused_and_change_nothing(kit):
    place = furnish(kit)
    root = person_of(User.objects.create_superuser("root"))
    before = state()
    for endpoint in ENDPOINTS:
        known = {endpoint.method, "HEAD" if endpoint.method == "GET" else ""}
        for method in set(METHODS) - known:
            path = endpoint.path.format(**place)
            response = root.client.generic(method, V1 + path, headers=root.headers)
            if method == "HEAD":
                assert (response.status_code, response.content) == (405, b"")
            else:
                problem(response, 405, "method-not-allowed")
            assert response["Allow"] == endpoint.method
    assert state() == before


def test_get_requests_change_nothing(kit):
    place = furnish(kit)
    root = person_of(User.objects.create_superuser("root"))
    before = state()
    for endpoint in ENDPOINTS:
        if endpoint.method == "GET":
            path = V1 + endpoint.path.format(**place)
            got = root.client.get(path, headers=root.headers)
            head = root.client.head(path, headers=root.headers)
            assert got.status_code == head.status_code
            assert head.content == b""
            assert "no-store" in got["Cache-Control"]
            assert got["X-Content-Type-Options"] == "nosniff"
    assert state() == before


def test_views_run_outside_of_atomic_requests(kit):
    for path, view in patterns(get_resolver()):
        if path.startswith("durable/api/v1/") and hasattr(view, "csrf_exempt"):
            if path.endswith("/v1/"):
                continue  # which queries no database
            assert connection.alias in view._non_atomic_requests, path


@override_settings(DURABLE_JOBS={"API_DESCRIPTION": "public"})
def test_description_is_served_and_names_every_endpoint(db):
    response = Client().get(f"{V1}openapi.json")
    described = response.json()
    assert described["openapi"].startswith("3.")
    found = {
        f"{method.upper()} {path}"
        for path, operations in described["paths"].items()
        for method in operations
    }
    assert len(found) == len(ENDPOINTS)
    assert b"cdn" not in response.content
    assert Client().post(f"{V1}openapi.json").status_code == 405
    problem(Caller().get("docs"), 404, "not-found")


@override_settings(
    ROOT_URLCONF="durable_jobs.urls", DURABLE_JOBS={"API_DESCRIPTION": "public"}
)
def test_project_may_include_the_addresses_anywhere(kit):
    described = Client().get("/api/v1/openapi.json").json()
    assert "/api/v1/runs/{run_id}" in described["paths"]
    assert Client().get("/api/v1/health").status_code == 200


def test_asynchronous_servers_serve_the_same(kit, api, sleeper):
    async def ask() -> list[int]:
        client, headers = AsyncClient(), api.headers
        body = {"name": "tests/slept"}
        sent = await client.post(
            f"{V1}events", body, content_type="application/json", headers=headers
        )
        listed = await client.get(f"{V1}runs", headers=headers)
        run = listed.json()["runs"][0]["id"]
        result = await client.get(f"{V1}runs/{run}/result?wait=9", headers=headers)
        return [sent.status_code, listed.status_code, result.status_code]

    assert async_to_sync(ask)() == [202, 200, 202]


def test_project_without_users_may_use_callbacks_and_probes(kit, settings):
    place = furnish(kit)
    settings.MIDDLEWARE = []
    assert Caller().get("health").status_code == 200
    problem(Caller().get("runs"), 401, "unauthorized")
    answer = Caller().post(f"callbacks/{place['token']}/succeed", {"data": 1})
    assert answer.status_code == 204
    assert not Event.objects.exists()
