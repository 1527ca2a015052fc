"""An action for all the runs of a filter."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User

from durable_jobs.control import bulk
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from tests.api.conftest import problem, program_of, user_with

pytestmark = pytest.mark.django_db

CANCEL = {
    "action": "cancel",
    "filter": {"function": "tests.sleeper"},
    "reason": "closed",
}


def test_bulk_action_on_a_filter_is_a_run_that_reports_its_result(kit, api, sleeper):
    chosen = [sleeper.enqueue() for _ in range(3)]
    response = api.post("runs/bulk", CANCEL)
    assert response.status_code == 202
    job = response.json()["run"]
    later = sleeper.enqueue()
    kit.run_until_idle()
    told = api.get(f"runs/{job['id']}/result").json()
    assert told["output"]["done"] == 3
    states = {run.status for run in Run.objects.filter(pk__in=[r.pk for r in chosen])}
    assert states == {RunStatus.CANCELLED}
    later.refresh_from_db()
    assert later.status == RunStatus.WAITING


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (None, 422, "invalid"),
        ({"action": "cancel"}, 422, "invalid"),
        ({"action": "edit", "filter": {}}, 422, "invalid"),
        ({"action": "cancel", "filter": {"statuz": "queued"}}, 422, "invalid-filter"),
        ({"action": "cancel", "filter": {"status": 7}}, 422, "invalid"),
        ({"action": "cancel", "filter": {"limit": "7"}}, 422, "invalid-filter"),
        ({"action": "cancel", "filter": {"function": "none"}}, 409, "refused"),
    ],
)
def test_invalid_filter_or_action_starts_nothing(kit, api, sleeper, body, status, code):
    sleeper.enqueue()
    problem(api.post("runs/bulk", body), status, code)
    assert not Run.objects.filter(function=bulk.FUNCTION).exists()


def test_filter_on_data_that_the_caller_may_not_see_is_refused(kit, sleeper):
    sleeper.enqueue({"bed": "s3cret"})
    caller = program_of(user_with("cancel_run", "view_run"), "runs:write")
    body = {"action": "cancel", "filter": {"where": ["data.bed=s3cret"]}}
    problem(caller.post("runs/bulk", body), 403, "forbidden")


def test_bulk_action_stops_when_the_owner_of_its_key_loses_permission(kit, sleeper):
    run = sleeper.enqueue()
    owner = user_with("cancel_run")
    assert program_of(owner, "runs:write").post("runs/bulk", CANCEL).status_code == 202
    owner.user_permissions.clear()
    kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == RunStatus.WAITING


def test_internal_runs_cannot_be_started_for_another_user(kit, api, sleeper):
    sleeper.enqueue()
    forged = {
        "action": "cancel", "reason": "", "filter": {}, "count": 1,
        "beginning": "00000000-0000-0000-0000-000000000000",
        "actor": {"user": str(User.objects.first().pk), "via": "", "scopes": None},
    }  # fmt: skip
    started = api.post(f"functions/{bulk.FUNCTION}/runs", {"data": forged})
    problem(started, 409, "refused")
    problem(api.get(f"functions/{bulk.FUNCTION}"), 404, "not-found")
    job = api.post("runs/bulk", CANCEL).json()["run"]["id"]
    for body in ({}, {"data": forged}):
        problem(api.post(f"runs/{job}/rerun", body), 409, "refused")
    problem(api.post(f"runs/{job}/answer", {"step": "x"}), 409, "refused")
    assert Run.objects.filter(function=bulk.FUNCTION).count() == 1
