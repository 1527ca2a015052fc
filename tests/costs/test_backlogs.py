"""What a start costs does not depend on how many runs are queued behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from bench.backlog import fill, plans
from durable_jobs import durable
from durable_jobs.events import admitting
from durable_jobs.models import Run, Slot
from durable_jobs.store import leases
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db

#: What each of the hot queries may touch: pages of the database, and rows.
MOST_BUFFERS, MOST_ROWS = 120, 60


@pytest.fixture
def kit(db: None) -> Iterator[Kit]:
    """Give a kit with a function of two limits, on PostgreSQL."""
    if connection.vendor != "postgresql":
        pytest.skip("plans are looked at on the database of record")
    with Kit() as made:

        @durable.function(
            id="cost.tenants",
            on=durable.Event("cost/work"),
            concurrency=[
                durable.Concurrency(5, key="event.data.tenant", of="runs"),
                durable.Concurrency(10, of="runs"),
            ],
        )
        def tenants(ctx):
            return None

        yield made


@pytest.mark.parametrize("count", [100, 10_000])
def test_the_hot_queries_use_their_indexes_and_touch_a_bounded_number_of_rows(
    kit: Kit, count: int
) -> None:
    fill("cost.tenants", count, arrived=False)
    fill("cost.tenants", count)
    for plan in plans():
        said = f"{plan.name}: {json.dumps(plan.tree, indent=1)}"
        if count > MOST_ROWS * 10:  # a table of a few pages is read as a whole
            assert plan.indexes & plan.expected, said
            assert not plan.scans, said
            assert plan.rows <= MOST_ROWS, said
        assert plan.buffers <= MOST_BUFFERS, said


def until_all_started(kit: Kit, hot: int) -> tuple[int, int]:
    """Return the admissions, and statements, until 100 small tenants have started.

    Each run ends before the next ones are claimed.
    """
    fill("cost.tenants", hot, tenant="hot")
    for n in range(100):
        kit.send("cost/work", {"tenant": f"small {n}"})
    small = Run.objects.filter(started_at__isnull=True).exclude(data__tenant="hot")
    admissions = 0
    with CaptureQueriesContext(connection) as queries:
        while small.exists():
            admitting.admit("default", 8)
            for run in leases.claim("default", 8, "cost"):
                Run.objects.filter(pk=run.pk).update(
                    status="completed", ended_at=kit.now(), lease_token=None
                )
                Slot.objects.filter(run=run).update(released_at=kit.now())
            kit.advance(timedelta(milliseconds=1), run=False)
            admissions += 1
            assert admissions < 500, "the others starve"
    return admissions, len(queries)


def test_small_tenants_start_as_if_the_hot_one_were_not_there(kit: Kit) -> None:
    figures: dict[int, Any] = {}
    for hot in (10, 5000):
        Run.objects.all().delete()
        figures[hot] = until_all_started(kit, hot)
    (few, _), (many, _) = figures[10], figures[5000]
    assert abs(many - few) <= 3, figures
