"""Many schedules: in batches of a few statements, once each, and free when idle."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.maintenance import tick
from durable_jobs.models import Event, Run, Schedule, Subject
from durable_jobs.schedules import fire
from durable_jobs.testing import Kit
from tests.lab.threads import together

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def report(kit: Kit) -> durable.Function:
    """Declare a function without triggers."""
    made: durable.Function = durable.function(id="report")(lambda ctx: None)
    return made


def make(count: int, **values: object) -> None:
    """Insert hourly schedules as ``create`` does, many at once."""
    slot = NOON + timedelta(hours=1)
    known: dict[str, object] = {"function": "report", "cron": "0 * * * *", "tz": "UTC"}
    known |= {"next_occurrence": slot, "due_at": slot}
    Schedule.objects.bulk_create(
        Schedule(**{**known, **values}, data={"n": number}) for number in range(count)
    )


def inserts(model: type[Model]) -> int:
    """Return how many statements insert a batch: SQLite limits their values."""
    most = connection.features.max_query_params
    if most is None or connection.vendor == "postgresql":
        return 1
    return math.ceil(fire.BATCH / (most // len(model._meta.concrete_fields)))


def test_batch_is_fired_in_a_few_statements(kit: Kit, report: durable.Function) -> None:
    make(fire.BATCH, owner_model="auth.user", owner_pk="1")
    kit.run_until_idle()
    kit.advance("1h", run=False)
    with CaptureQueriesContext(connection) as captured:
        assert fire.sweep() == fire.BATCH
    statements = [q for q in captured if "SAVEPOINT" not in q["sql"]]
    # Reads: the due rows, the existing events, and the queries shared by any batch.
    # Writes: events, runs and subjects are inserted, and the schedules move on.
    written = sum(inserts(model) for model in (Event, Run, Subject, Schedule))
    assert len(statements) <= 3 + written
    assert Run.objects.count() == Event.objects.count() == fire.BATCH
    assert sorted(run.data["data"]["n"] for run in Run.objects.all()) == list(
        range(fire.BATCH)
    )
    assert not Schedule.objects.exclude(due_at=NOON + timedelta(hours=2)).exists()


def test_tick_fires_more_than_one_batch(kit: Kit, report: durable.Function) -> None:
    make(fire.BATCH + 7)
    kit.run_until_idle()
    kit.advance("1h", run=False)
    tick.tick()
    assert Run.objects.count() == fire.BATCH + 7


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("overlap", ["allow", "skip", "queue"])
def test_concurrent_beats_fire_each_occurrence_once(
    kit: Kit, report: durable.Function, overlap: str
) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("threads do not share a database in memory")
    make(3 * fire.BATCH, overlap=overlap, catch_up="all")
    kit.run_until_idle()
    kit.advance("2h", run=False)
    together(*[fire.sweep] * 4)
    fire.sweep()
    slots = Run.objects.values_list("event_id", flat=True)
    assert len(set(slots)) == len(slots)
    started = Run.objects.exclude(status="skipped").count()
    each = 2 if overlap == "allow" else 1
    assert started == each * 3 * fire.BATCH
    held = sum(len(row.queued_occurrences) for row in Schedule.objects.all())
    assert len(slots) + held == 2 * 3 * fire.BATCH


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("skip", 0), ("one", 1), ("all", 31 * 24)],
)
def test_month_without_a_tick(
    kit: Kit,
    report: durable.Function,
    catch_up: Literal["skip", "one", "all"],
    expected: int,
) -> None:
    durable.schedules.create(report, "0 * * * *", catch_up=catch_up)
    kit.run_until_idle()
    kit.advance(timedelta(days=31, minutes=30), run=False)
    kit.run_until_idle()
    slots = [run.data["scheduled_at"] for run in Run.objects.all()]
    assert len(slots) == len(set(slots)) == expected
    assert Schedule.objects.get().next_occurrence == kit.now() + timedelta(minutes=30)
    kit.advance("30m")
    assert Run.objects.count() == expected + 1


def test_clock_that_goes_back_fires_nothing_again(
    kit: Kit, report: durable.Function
) -> None:
    schedule = durable.schedules.create(report, "*/10 * * * *", catch_up="all")
    kit.advance("1h")
    assert Run.objects.count() == 6
    kit._clock.moment -= timedelta(minutes=30)
    kit.run_until_idle()
    assert Run.objects.count() == 6
    # A schedule that is paused, resumed or changed at that time fires no more either.
    schedule.pause()
    schedule.resume()
    assert schedule.next_occurrence == NOON + timedelta(minutes=70)
    schedule.change(cron="*/5 * * * *")
    kit.advance("30m")
    assert Run.objects.count() == 6
    kit.advance("10m")
    assert Run.objects.count() == 8


def test_query_of_an_idle_tick_uses_the_index(kit: Kit) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("tests PostgreSQL's planner")
    make(5000, due_at=NOON + timedelta(days=30))
    make(5000, due_at=None, missing_at=NOON)
    with connection.cursor() as cursor:
        cursor.execute(f"ANALYZE {Schedule._meta.db_table}")
    due = Schedule.objects.filter(due_at__lte=NOON)
    plan = due.explain(analyze=True, buffers=True, format="json")
    assert "durable_schedule_next" in plan
    blocks = json.loads(plan)[0]["Plan"]
    assert blocks["Shared Hit Blocks"] + blocks["Shared Read Blocks"] < 10
