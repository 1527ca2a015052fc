"""The cost of a hostile body, and the checks before a body is read."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import override_settings

from durable_jobs import durable, http_input
from durable_jobs.lifecycle import callbacks
from tests.api.conftest import EVERY, V1, Caller, person_of, problem, program_of
from tests.api.conftest import user_with as make_user
from tests.api.endpoints import ENDPOINTS, furnish
from tests.hostile import MEGABYTE, PATTERNS, body, in_linear_time, unread

pytestmark = pytest.mark.django_db

LINES = "application/x-ndjson"
SIZES = (10_000, 100_000, MEGABYTE, 4 * MEGABYTE)
POSTS = [one for one in ENDPOINTS if one.method == "POST"]
NEEDY = [one for one in POSTS if one.permission]
CALLBACKS = [one for one in POSTS if not one.permission]


@pytest.fixture
def place(kit):
    return furnish(kit)


def post(caller: Caller, path: str, **extra: Any) -> Any:
    """Post a body that must not be read."""
    return caller.client.generic(
        "POST",
        V1 + path,
        headers=caller.headers,
        **unread(**extra),
    )


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hostile_bodies_take_linear_time_at_every_endpoint(place, api, pattern):
    for endpoint in POSTS:
        path = endpoint.path.format(**place)
        raw = body(pattern, MEGABYTE)
        response = in_linear_time(MEGABYTE, partial(api.post, path, raw))
        if pattern == "blanks":  # which is no body
            assert response.status_code != 500
        else:
            assert response.status_code in (413, 422), response.content
    for size in SIZES:
        raw = body(pattern, size)
        for path in ("events", f"callbacks/{place['token']}/succeed"):
            in_linear_time(size, partial(api.post, path, raw))
        in_linear_time(size, partial(api.post, "events", raw, LINES))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_hostile_lines_take_linear_time(kit, api, pattern):
    line = body(pattern, 1000) + b"\n"
    raw = line * (MEGABYTE // len(line))
    in_linear_time(MEGABYTE, partial(api.post, "events", raw, LINES))


def test_unknown_keys_and_strangers_are_refused_before_the_body_is_read(place):
    callers = [
        Caller(),
        Caller(headers={"Authorization": "Bearer dj_wrong"}),
        Caller(headers={"Authorization": "Basic dj_wrong"}),
        person_of(make_user("send_event")),  # a user who is not staff
    ]
    for caller in callers:
        for endpoint in NEEDY:
            response = post(caller, endpoint.path.format(**place))
            problem(response, 401, "unauthorized")


def test_forged_sessions_are_refused_before_the_body_is_read(place):
    forged = person_of(User.objects.create_superuser("root"))
    forged.headers.clear()
    for endpoint in NEEDY:
        response = post(forged, endpoint.path.format(**place))
        problem(response, 403, "csrf-failed")
        kind = "application/x-www-form-urlencoded"
        response = post(forged, endpoint.path.format(**place), kind=kind)
        problem(response, 415, "unsupported-media-type")


@pytest.mark.parametrize("endpoint", NEEDY, ids=str)
def test_missing_scope_or_permission_is_reported_before_the_body_is_read(
    place, endpoint
):
    path = endpoint.path.format(**place)
    root = User.objects.create_superuser("root")
    scopes = [scope for scope in EVERY if scope != endpoint.scope]
    problem(post(program_of(root, *scopes), path), 403, "forbidden")
    sees = make_user("view_run", is_staff=True)
    for caller in (program_of(sees, *EVERY), person_of(sees)):
        problem(post(caller, path), 403, "forbidden")


def test_missing_object_is_reported_before_the_body_is_read(place, api):
    missing = "01890000-0000-7000-8000-000000000000"
    for action in ("cancel", "pause", "resume", "retry", "wake", "redrive", "rerun"):
        problem(post(api, f"runs/{missing}/{action}"), 404, "not-found")
    problem(post(api, f"runs/{missing}/answer"), 404, "not-found")
    problem(post(api, "functions/tests.nothing/runs"), 404, "unknown-function")
    for action in ("pause", "resume", "run"):
        problem(post(api, f"schedules/999999/{action}"), 404, "not-found")


def test_callback_tokens_are_checked_before_the_body_is_read(place):
    answered = place["token"]
    Caller().post(f"callbacks/{answered}/succeed")
    forged = answered[:-1] + ("a" if answered[-1] != "a" else "b")
    for token in ("x", "a-b:c", forged, answered):
        for action in ("succeed", "fail", "heartbeat"):
            response = post(Caller(), f"callbacks/{token}/{action}")
            problem(response, 410, "callback-closed")


def test_sizes_are_refused_before_the_body_is_read(place, api):
    with override_settings(DURABLE_JOBS={"MAX_REQUEST_BYTES": 100}):
        for endpoint in POSTS:
            response = post(api, endpoint.path.format(**place), size=101)
            problem(response, 413, "limit-exceeded")


def test_rerun_with_data_needs_only_the_permission_to_edit(place):
    program = program_of(make_user("edit_run"), *EVERY)
    path = f"runs/{place['rerun']}/rerun"
    assert program.post(path, {"data": {"kind": "ask"}}).status_code == 201
    problem(program.post(path), 404, "not-found")


def test_callback_is_answered_while_its_run_waits(kit, api):
    @durable.function(id="tests.calls")
    def calls(ctx: durable.Context) -> Any:
        return ctx.step.wait_for_callback("call", lambda callback: None)

    run = calls.enqueue()
    kit.run_until_idle()
    token = callbacks.token(run.pk, run.steps.get().key)
    assert Caller().post(f"callbacks/{token}/succeed", {"data": 1}).status_code == 204
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 1


def test_values_inside_of_strings_are_not_counted():
    most = 4 * MEGABYTE
    text = b'{"a": "' + b',[{\\"\\\\' * (http_input.MOST_VALUES // 2) + b'"}'
    assert list(http_input.read_json(text, what="it", most=most)) == ["a"]
    names = b",".join(b'"%d": ""' % number for number in range(100_000))
    assert (
        len(http_input.read_json(b"{" + names + b"}", what="it", most=most)) == 100_000
    )
