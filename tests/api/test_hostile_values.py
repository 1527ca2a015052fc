"""Values that are valid JSON: their cost, and meanings they must not have."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from types import SimpleNamespace

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from durable_jobs import durable
from durable_jobs.control import id_namespaces
from durable_jobs.lifecycle import callbacks
from durable_jobs.models import Run
from durable_jobs.queries import visibility
from tests.api.conftest import V1, Caller, problem
from tests.hostile import in_linear_time

pytestmark = pytest.mark.django_db

NAMES = b"{" + b",".join(b'"k%d":1' % number for number in range(90_000)) + b"}"
OFFSETS = ("2030-01-01T00:00:00+23:59", "2030-01-01T00:00:00-23:59")


def test_object_of_very_many_unknown_names_is_one_error(kit, api):
    @durable.function(id="tests.calls")
    def calls(ctx):
        return ctx.step.wait_for_callback("call", lambda callback: None)

    run = calls.enqueue()
    kit.run_until_idle()
    token = callbacks.token(run.pk, run.steps.get().key)
    for path in (
        "events",
        f"callbacks/{token}/succeed",
        "functions/tests.calls/runs",
        "signals/word",
        f"runs/{run.pk}/cancel",
    ):
        for raw in (NAMES, b"[" + NAMES + b"]"):
            # Unknown names once gave 7 MB of errors, in more than a second.
            response = in_linear_time(4_000_000, partial(api.post, path, raw))
            assert response.status_code == 422
            assert len(response.content) < 1000


def test_errors_of_a_body_are_few_and_short(kit, api):
    unknown = {"action": "cancel", "filter": {}, "x" * 1_000_000: 1}
    found = problem(api.post("runs/bulk", unknown), 422, "invalid")
    assert len(json.dumps(found)) < 2000
    found = problem(api.post("events", {"name": "a", "x" * 100_000: 1}), 422, "invalid")
    assert len(json.dumps(found)) < 2000
    for wrong in ([1] * 200_000, {"a": 1}, None, 1):
        body = {"action": "cancel", "filter": {"id": wrong}}
        response = in_linear_time(4_000_000, partial(api.post, "runs/bulk", body))
        problem(response, 422, "invalid")
        assert len(response.content) < 1000


def test_empty_list_in_the_filter_of_a_bulk_run_is_not_all_runs(kit, api, sleeper):
    sleeper.enqueue()
    body = {"action": "cancel", "filter": {"id": []}}
    assert "id" in problem(api.post("runs/bulk", body), 422, "invalid")["detail"]
    assert Run.objects.count() == 1


@pytest.mark.parametrize("moment", OFFSETS)
@pytest.mark.parametrize("time", ["queued", "started", "ended"])
def test_moments_with_the_largest_offsets_are_understood(kit, api, moment, time):
    for name in ("since", "until"):
        response = api.get("runs", {name: moment, "time": time})
        assert response.status_code == 200, response.content
    assert api.post("events", {"name": "a", "ts": moment}).status_code == 202


def test_reader_of_the_schema_is_not_remembered(kit, api):
    assert api.get("openapi.json").status_code == 200
    assert visibility.current_viewer() is None
    with visibility.seen_by(None):
        response = Client().get(f"{V1}openapi.json")
        problem(response, 401, "unauthorized")
    assert "no-store" in api.get("openapi.json")["Cache-Control"]


def test_repeated_idempotent_start_starts_nothing_and_says_so(kit, api):
    @durable.function(id="tests.paid", idempotency="event.data.order")
    def paid(ctx):
        return None

    first = api.post("functions/tests.paid/runs", {"data": {"order": 7}})
    assert first.status_code == 201
    written = LogEntry.objects.count()
    again = api.post("functions/tests.paid/runs", {"data": {"order": 7}})
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert LogEntry.objects.count() == written


def test_username_cannot_equal_the_space_of_another_user():
    other = "ann@example.com"
    digest = hashlib.sha256(other.encode()).hexdigest()
    found = [id_namespaces.of_user(SimpleNamespace(pk=key)) for key in (other, digest)]
    assert found[0] != found[1]


def test_anonymous_errors_echo_no_part_of_the_request(kit):
    for raw in (NAMES, b"["):
        problem(Caller().post("callbacks/x/succeed", raw), 410, "callback-closed")
