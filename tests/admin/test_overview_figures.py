"""The figures of the overview, and the durations of redriven runs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.urls import reverse

from durable_jobs import clock
from durable_jobs.maintenance import run_stats
from tests.admin.conftest import list_of, make_runs, page_of

pytestmark = pytest.mark.django_db


def overview() -> str:
    return reverse("admin:durable_jobs_overview")


def test_failures_link_to_the_failed_runs_of_the_period(durable_kit, get):
    make_runs(2, status="failed", error={"type": "E", "message": "m"})
    make_runs(1)
    page = get(overview())
    assert "2 failures · 66.7%" in page.text
    failed = "?status=failed&time=ended&period=hour"
    assert f"{list_of('run')}{failed}" in page.links()


def test_figure_says_that_the_past_is_still_counted(durable_kit, get):
    assert get(overview()).text.count("counting…") == 2
    while run_stats.sweep():
        pass
    assert "counting" not in get(overview()).text


def test_duration_of_a_redriven_run_has_the_elapsed_time_beside_it(get):
    now = clock.now()
    run = make_runs(
        1,
        queued_at=now - timedelta(minutes=4),
        ended_at=now,
        stopped_for=timedelta(minutes=3),
    )[0]
    assert "1 m 00 s · 4 m 00 s elapsed" in get(page_of(run)).text
    assert "1 m 00 s" in get(list_of("run")).text


def failures(step: str, count: int = 1) -> None:
    error = {"type": "KeyError", "message": "'GBP'", "step_name": step}
    make_runs(count, status="failed", error=error)


def test_redrive_all_leads_to_the_confirmation_for_the_group(get, admin_client):
    failures("price", 3)
    failures("12")
    page = get(overview())
    assert "new KeyError 'GBP'" in page.text
    (form, _) = [
        attrs["action"]
        for tag, attrs in page.tags
        if tag == "form"
        and "error.step_name" in (attrs.get("action") or "")
        and "price" in (attrs.get("action") or "")
    ] + [None]
    fields = {
        attrs["name"]: attrs["value"]
        for tag, attrs in page.tags
        if tag == "input" and attrs.get("type") == "hidden" and attrs.get("name")
    }
    response = admin_client.post(form, fields)
    text = response.content.decode()
    assert response.status_code == 200
    assert "Redrive 3 runs" in text
    assert "error.step_name=price" in text
    assert len(get(form).rows("run")) == 3


def test_redrive_all_is_absent_without_the_permissions(operator):
    failures("price")
    for names in (("view_run", "redrive_run"), ("view_run", "view_payload")):
        client = operator(*names, username="-".join(names))
        assert b"Redrive all" not in client.get(overview()).content
    client = operator("view_run", "redrive_run", "view_payload", username="all")
    assert b"Redrive all" in client.get(overview()).content
