"""The cost of a start is independent of the number of runs in its backlog."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from django.apps import apps
from django.db import connection

from bench.backlog import fill, plans, until_started
from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db

LABEL = "durable_jobs"
#: The maximum of pages and rows that each hot query may read.
MOST_BUFFERS, MOST_ROWS = 120, 60


@pytest.fixture
def kit(db: None) -> Iterator[Kit]:
    """Yield a kit with a function of two limits, on PostgreSQL."""
    if connection.vendor != "postgresql":
        pytest.skip("plans are tested on PostgreSQL")
    # Rows of rolled-back tests would remain in the pages and be read.
    tables = [one._meta.db_table for one in apps.get_app_config(LABEL).get_models()]
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {', '.join(tables)} CASCADE")
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

        for name in ("cost.free", "cost.other"):
            durable.function(id=name)(lambda ctx: None)
        yield made


@pytest.mark.parametrize("count", [100, 10_000])
def test_hot_queries_use_their_indexes_and_touch_a_bounded_number_of_rows(
    kit: Kit, count: int
) -> None:
    fill("cost.free", count, arrived=False)
    fill("cost.other", 1, arrived=False)
    fill("cost.tenants", count, arrived=False)
    fill("cost.tenants", count)
    for plan in plans():
        said = f"{plan.name}: {json.dumps(plan.tree, indent=1)}"
        if count > MOST_ROWS * 10:  # a table of a few pages is read as a whole
            assert plan.indexes & plan.expected, said
            assert not plan.scans, said
            assert plan.rows <= MOST_ROWS, said
        assert plan.buffers <= MOST_BUFFERS, said


def test_small_tenants_start_as_if_there_were_no_hot_one(kit: Kit) -> None:
    few = until_started("cost.tenants", "cost/work", 10)
    Run.objects.all().delete()
    many = until_started("cost.tenants", "cost/work", 5000)
    assert many["admissions"] - few["admissions"] <= 3, (few, many)
    assert many["started"] - few["started"] <= 24, "the hot tenant starts runs too"
