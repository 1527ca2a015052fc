"""Crons: one run per occurrence, for any number of ticks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from durable_jobs import durable
from durable_jobs.maintenance import tick
from durable_jobs.models import Event, Run, Schedule
from durable_jobs.schedules import fire, sync
from durable_jobs.store import schedules
from durable_jobs.testing import Kit
from tests.lab.threads import together
from tests.schedules.conftest import Every, Slots

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_cron_fires_at_its_times(kit: Kit, every: Every, slots: Slots) -> None:
    every("*/20 * * * *")
    kit.advance("1h")
    minutes = [slot.minute for slot in slots()]
    assert minutes == [20, 40, 0]
    for run in Run.objects.all():
        assert run.started_at == run.data["scheduled_at"] == run.data["fired_at"]


def test_event_has_the_cron_and_the_time(kit: Kit, every: Every) -> None:
    @durable.function(id="look", on=durable.Cron("30 12 * * *"))
    def look(ctx):
        return [ctx.event.name, ctx.event.data, ctx.event.ts]

    kit.advance("30m")
    moment = NOON + timedelta(minutes=30)
    run = Run.objects.get()
    assert run.result() == [
        "durable/cron",
        {"cron": "30 12 * * *", "scheduled_at": moment, "fired_at": moment},
        moment,
    ]
    assert run.trigger == "durable/cron"
    event = Event.objects.get()
    assert (event.pk, event.name, event.ts) == (run.event_id, "durable/cron", moment)


def test_new_cron_waits_for_its_first_time(
    kit: Kit, every: Every, slots: Slots
) -> None:
    every("0 * * * *")
    kit.run_until_idle()
    assert slots() == []
    kit.advance("59m59s")
    assert slots() == []
    kit.advance("1s")
    assert slots() == [NOON + HOUR]


def test_cron_that_is_declared_late_is_found(
    kit: Kit, every: Every, slots: Slots
) -> None:
    kit.run_until_idle()
    every("0 * * * *")
    kit.advance("2h")
    assert slots() == [NOON + HOUR, NOON + 2 * HOUR]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("@hourly", HOUR),
        ("@daily", timedelta(hours=12)),
        ("0 9 * * 1-5", timedelta(hours=21)),
        # The 13th, or any Friday: with both fields, either matches.
        ("0 0 13 * 5", timedelta(days=1, hours=12)),
        ("0 0 5 * 5", timedelta(hours=12)),
        ("@monthly", timedelta(days=27, hours=12)),
    ],
)
def test_fields_have_the_meaning_of_cron(
    kit: Kit, every: Every, text: str, expected: timedelta
) -> None:
    every(text)
    kit.run_until_idle()
    assert Schedule.objects.get().due_at == NOON + expected


def test_zone_counts(kit: Kit, every: Every, slots: Slots) -> None:
    every("0 9 * * *", tz="America/New_York")
    kit.advance("1d")
    assert slots() == [datetime(2026, 3, 4, 14, tzinfo=UTC)]


def test_function_may_have_several_crons_and_other_triggers(
    kit: Kit, slots: Slots
) -> None:
    durable.function(
        id="clock",
        on=[
            durable.Cron("15 * * * *"),
            durable.Cron("45 * * * *"),
            durable.Cron("15 * * * *", tz="Asia/Kolkata"),
            durable.Event("a/b"),
        ],
    )(lambda ctx: ctx.event.data)
    kit.advance("1h")
    assert [slot.minute for slot in slots()] == [15, 45, 45]
    kit.send("a/b", {"scheduled_at": NOON})
    kit.run_until_idle()
    assert Run.objects.count() == 4


def test_two_ticks_fire_once(kit: Kit, every: Every) -> None:
    every("0 * * * *")
    kit.run_until_idle()
    kit.advance("1h", run=False)
    tick.tick()
    tick.tick()
    kit.run_until_idle()
    assert Run.objects.count() == 1


def test_late_second_beat_fires_nothing_after_the_first(kit: Kit, every: Every) -> None:
    """The guard behind the row's lock is the id of the occurrence's event."""
    every("0 * * * *")
    kit.run_until_idle()
    kit.advance("1h", run=False)
    read = list(schedules.rows())
    tick.tick()
    assert fire._fire(read) == (1, 0)
    assert Run.objects.count() == 1
    assert Schedule.objects.get().due_at == NOON + 2 * HOUR


@pytest.mark.django_db(transaction=True)
def test_concurrent_beats_fire_once(kit: Kit, every: Every) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("threads do not share a database in memory")
    for number in range(5):
        every("0 * * * *", id=f"clock-{number}")
    kit.run_until_idle()
    kit.advance("1h", run=False)
    together(*[tick.tick] * 4)
    assert Run.objects.count() == 5


def test_crash_of_the_beat_loses_and_duplicates_nothing(
    kit: Kit, every: Every, slots: Slots
) -> None:
    every("0 * * * *")
    kit.run_until_idle()
    kit.advance("1h", run=False)

    class Killed(BaseException):
        pass

    def kill(execute, sql, params, many, context):
        if sql.startswith("INSERT") and "durable_jobs_run" in sql:
            raise Killed
        return execute(sql, params, many, context)

    with connection.execute_wrapper(kill), pytest.raises(Killed):
        tick.tick()
    assert not Event.objects.exists()
    kit.run_until_idle()
    assert slots() == [NOON + HOUR]


def test_removed_cron_fires_no_more(kit: Kit, every: Every) -> None:
    with Kit(now=kit.now()) as old:
        durable.function(id="old", on=durable.Cron("0 * * * *"))(lambda ctx: None)
        old.run_until_idle()
    kit.advance("3h")
    assert not Run.objects.exists()


def test_changed_cron_follows_its_new_times(kit: Kit, slots: Slots) -> None:
    for minute in (15, 45):
        with Kit(now=kit.now()) as code:
            durable.function(id="clock", on=durable.Cron(f"{minute} * * * *"))(
                lambda ctx: ctx.event.data
            )
            code.advance("1h")
            now = code.now()
        kit.travel_to(now)
    assert [slot.minute for slot in slots()] == [15, 45]
    # The old schedule is inactive, also while the code has the function.
    kit.travel_to(kit.now() + HOUR, run=False)
    with Kit(now=kit.now()) as code:
        durable.function(id="clock", on=durable.Cron("45 * * * *"))(lambda ctx: None)
        code.run_until_idle()
        assert sync.sync() == 0
        old = Schedule.objects.get(cron="15 * * * *")
        assert (old.missing_at, old.due_at) == (NOON + 75 * MINUTE, None)


def test_cron_of_a_leap_day_starts_nothing_in_other_years(
    kit: Kit, every: Every
) -> None:
    every("0 0 29 2 *")
    kit.advance("365d")
    assert not Run.objects.exists()
    kit.run_until_idle()
    assert Schedule.objects.get().due_at == datetime(2028, 2, 29, tzinfo=UTC)
