"""Health, readiness and metrics."""

from __future__ import annotations

import sys
from datetime import timedelta

import pytest
from django.db import OperationalError
from prometheus_client.parser import text_string_to_metric_families

from durable_jobs import clock, durable
from durable_jobs.maintenance import doctor
from durable_jobs.maintenance import tick as tick_module
from durable_jobs.models import Worker
from durable_jobs.queries import metrics
from durable_jobs.statuses import RunStatus
from tests.admin.conftest import make_runs
from tests.api.conftest import Caller, problem

pytestmark = pytest.mark.django_db


def ticked(**values):
    now = clock.now()
    known = {
        "name": tick_module.TICK,
        "kind": "beat",
        "seen_at": now,
        "started_at": now,
    }
    return Worker.objects.create(**{**known, **values})


def test_health_is_ok_whatever_the_database_does(kit, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert Caller().get("health").json() == {"status": "ok"}


def test_readiness_needs_a_tick_and_no_overdue_work(kit, django_assert_max_num_queries):
    ticked()
    with django_assert_max_num_queries(3):
        response = Caller().get("ready")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ready", "last_tick_seconds": 0.0, "oldest_ready_seconds": None,
        "causes": [],
    }  # fmt: skip


def test_readiness_reports_why_it_fails(kit):
    found = Caller().get("ready")
    assert found.status_code == 503
    assert [one["check"] for one in found.json()["causes"]] == ["tick"]
    tick = ticked()
    durable.function(id="tests.left")(lambda ctx: None).enqueue()
    assert Caller().get("ready").status_code == 200
    kit.advance("10m", run=False)
    causes = Caller().get("ready").json()["causes"]
    assert [one["check"] for one in causes] == ["tick", "not-begun"]
    tick.seen_at = kit.now()
    tick.save()
    found = Caller().get("ready").json()
    assert [one["check"] for one in found["causes"]] == ["not-begun"]
    assert found["oldest_ready_seconds"] == 600
    kit.run_until_idle()
    assert Caller().get("ready").status_code == 200


def test_unavailable_database_is_a_cause(kit, monkeypatch):
    def away(**kwargs):
        raise OperationalError("gone")

    monkeypatch.setattr(doctor, "readiness", away)
    response = Caller().get("ready")
    assert response.status_code == 503
    assert response.json()["causes"][0]["check"] == "database"


def figures(response):
    """Return the metrics of a response by name and label."""
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.content.decode())
        for sample in family.samples
    }


def test_metrics_report_current_work(kit, api, sleeper):
    ticked()
    sleeper.enqueue()
    kit.run_until_idle()
    sleeper.enqueue()
    sleeper.enqueue().pause()
    make_runs(2, status=RunStatus.FAILED)
    kit.advance("90s", run=False)
    found = figures(api.get("metrics"))
    runs = {key[1]: value for key, value in found.items() if key[0].endswith("_runs")}
    assert found["durable_jobs_runs", "queued"] == 1
    assert found["durable_jobs_runs", "waiting"] == 1
    assert found["durable_jobs_runs", "paused"] == 1
    assert found["durable_jobs_runs", "running"] == 0
    assert found["durable_jobs_ended_runs", "failed"] == 2
    assert found["durable_jobs_ended_runs", "completed"] == 0
    assert found["durable_jobs_queue_depth", "default"] == 1
    assert found["durable_jobs_oldest_ready_seconds", "default"] == 90
    assert found["durable_jobs_workers", "beat"] == 1
    assert found[("durable_jobs_last_tick_seconds",)] == 90
    assert runs


def test_metrics_count_no_history_and_up_to_a_documented_cap(
    kit, api, monkeypatch, django_assert_max_num_queries
):
    monkeypatch.setattr(metrics, "MAX_COUNT", 3)
    make_runs(20, queued_at=kit.now() - timedelta(days=3))
    make_runs(5, status=RunStatus.PAUSED, ended_at=None)
    found = figures(api.get("metrics"))
    assert found["durable_jobs_runs", "paused"] == 3
    assert found["durable_jobs_ended_runs", "completed"] == 0
    with django_assert_max_num_queries(20):
        api.get("metrics")


def test_metrics_without_the_extra_say_what_to_install(kit, api, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    found = problem(api.get("metrics"), 501, "not-installed")
    assert "durable-jobs[metrics]" in found["detail"]
