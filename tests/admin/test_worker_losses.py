"""The displayed number of crashes: a claim counts in advance, and is no crash."""

from __future__ import annotations

import json

import pytest
from django.test import Client
from django.urls import reverse

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.queries.run_rows import as_json
from durable_jobs.store import leases
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


@pytest.fixture
def run(durable_kit: Kit) -> Run:
    made = durable.function(id="t.idle")(lambda ctx: None).enqueue()
    durable_kit.run_until_idle()
    Run.objects.update(status="queued", ended_at=None, output=None)
    return made


def shown(run: Run, client: Client) -> set[int]:
    """Return the crashes that each page shows."""
    address = reverse("admin:durable_jobs_export")
    (row,) = json.loads(client.get(address, {"format": "json"}).getvalue())
    found = Run.objects.get(pk=run.pk)
    return {row["crash_count"], as_json(found)["crash_count"], found.worker_losses}


def test_crashes_of_a_healthy_running_run_are_zero(
    run: Run, admin_client: Client
) -> None:
    (claimed,) = leases.claim("default", 1, "w")
    assert claimed.crash_count == 1
    assert shown(run, admin_client) == {0}


def test_crashes_are_the_workers_that_died(run: Run, admin_client: Client) -> None:
    Run.objects.update(crash_count=2)
    assert shown(run, admin_client) == {2}
    leases.claim("default", 1, "w")
    assert shown(run, admin_client) == {2}
    page = admin_client.get(reverse("admin:durable_jobs_run_change", args=[run.pk]))
    assert page.status_code == 200
