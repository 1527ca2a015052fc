"""Schedules and callbacks over HTTP."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry

from durable_jobs import durable
from durable_jobs.models import Schedule
from durable_jobs.statuses import RunStatus
from tests.api.conftest import Caller, problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def job(kit):
    return durable.function(id="tests.job")(lambda ctx: ctx.step.sleep("x", "1d"))


def test_schedules_are_listed_in_pages(kit, api, job):
    made = [
        durable.schedules.create(job, "0 9 * * *", name=f"n{n}", jitter="30s")
        for n in range(3)
    ]
    first = api.get("schedules", {"limit": 2, "function": job.id}).json()
    rest = api.get("schedules", {"limit": 2, "cursor": first["next"]}).json()
    assert [one["id"] for one in first["schedules"] + rest["schedules"]] == [
        one.pk for one in made
    ]
    assert rest["next"] is None
    assert first["schedules"][0]["jitter"] == 30
    assert api.get("schedules", {"function": "other"}).json()["schedules"] == []
    for params in ({"function": "\x00"}, {"cursor": "nope"}):
        problem(api.get("schedules", params), 422, "invalid-filter")


def test_schedule_can_be_paused_run_and_resumed_with_a_log_entry_each(kit, api, job):
    schedule = durable.schedules.create(job, "0 9 * * *", overlap="queue")
    path = f"schedules/{schedule.pk}"
    paused = api.post(f"{path}/pause", {"reason": "holidays"}).json()["schedule"]
    assert paused["reason"] == "holidays"
    assert paused["due_at"] is None
    problem(api.post(f"{path}/pause"), 409, "refused")
    run = api.post(f"{path}/run").json()["run"]
    assert run == str(Schedule.objects.get().last_run)
    kit.run_until_idle()
    assert api.post(f"{path}/run").json()["run"] is None  # it waits for that event
    assert api.post(f"{path}/resume").json()["schedule"]["paused_at"] is None
    problem(api.post(f"{path}/resume"), 409, "refused")
    said = LogEntry.objects.filter(
        object_id=str(schedule.pk), content_type__model="schedule"
    ).order_by("pk")
    assert [one.change_message.partition(" (")[0] for one in said] == [
        "Paused: holidays", f"Run {run} started.", "Queued to run.", "Resumed.",
    ]  # fmt: skip
    for id in (0, 2**63 - 1, 2**63, 10**30):
        problem(api.post(f"schedules/{id}/pause"), 404, "not-found")


def test_schedule_of_a_removed_function_does_not_run(kit, api, job):
    schedule = durable.schedules.create(job, "0 9 * * *")
    Schedule.objects.update(function="tests.gone")
    problem(api.post(f"schedules/{schedule.pk}/run"), 409, "refused")


@pytest.fixture
def call(kit):
    """Start a run that waits for a callback; return it and its token."""
    tokens = []

    @durable.function(id="tests.calls")
    def calls(ctx: durable.Context):
        return ctx.step.wait_for_callback(
            "call", lambda callback: tokens.append(callback.token), heartbeat="1h"
        )

    run = calls.enqueue()
    kit.run_until_idle()
    return run, tokens[0]


def test_callback_is_answered_by_its_token_alone_and_once(kit, call):
    run, token = call
    kit.advance("50m")
    assert Caller().post(f"callbacks/{token}/heartbeat").status_code == 204
    kit.advance("50m")
    body = {"data": {"done": True}}
    assert Caller().post(f"callbacks/{token}/succeed", body).status_code == 204
    for action in ("succeed", "fail", "heartbeat"):
        problem(Caller().post(f"callbacks/{token}/{action}"), 410, "callback-closed")
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == {"done": True}


def test_callback_fails_with_a_message_and_a_type(kit, call):
    run, token = call
    body = {"message": "no stock", "error_type": "OutOfStock"}
    assert Caller().post(f"callbacks/{token}/fail", body).status_code == 204
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == RunStatus.FAILED
    assert "no stock" in run.error["message"]


def test_forged_token_and_bad_data_change_nothing(kit, call):
    run, token = call
    forged = [token[:-1] + ("x" if token[-1] != "x" else "y"), "x", "%00", "%ff", "é:é"]
    for one in forged:
        response = Caller().post(f"callbacks/{one}/succeed", {"data": 1})
        problem(response, 410, "callback-closed")
    for body in (b'{"data": NaN}', b"{", b'{"date": 1}', b"7"):
        response = Caller().post(f"callbacks/{token}/succeed", body)
        problem(response, 422, response.json()["code"])
    run.refresh_from_db()
    assert run.status == RunStatus.WAITING


def test_url_of_a_callback_is_that_of_the_api(kit, settings):
    settings.DURABLE_JOBS = {
        "CALLBACK_BASE_URL": "http://testserver/durable/api/v1/callbacks"
    }
    urls = []
    run = durable.function(id="tests.told")(
        lambda ctx: ctx.step.wait_for_callback("c", lambda one: urls.append(one.url))
    ).enqueue()
    kit.run_until_idle()
    path = urls[0].removeprefix("http://testserver/durable/api/v1/")
    assert Caller().post(f"{path}/succeed", {"data": 7}).status_code == 204
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.result() == 7
