"""Schedules that users create at run time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from durable_jobs import durable
from durable_jobs.maintenance import tick
from durable_jobs.models import Event, Run, Schedule
from durable_jobs.testing import Kit

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def report(kit: Kit) -> durable.Function:
    """Declare a function without triggers."""
    made: durable.Function = durable.function(id="report")(lambda ctx: ctx.event.data)
    return made


@pytest.fixture
def ada(db: None) -> User:
    """Return a user who owns schedules."""
    return User.objects.create(username="ada")


def hourly(**values: Any) -> Schedule:
    return durable.schedules.create("report", "0 * * * *", **values)


def test_schedule_starts_its_function_with_its_data_for_its_owner(
    kit: Kit, report: durable.Function, ada: User
) -> None:
    schedule = durable.schedules.create(
        report, "0 9 * * *", tz="Asia/Tokyo", data={"team": 7}, owner=ada, name="mine"
    )
    kit.advance("1d")
    run = Run.objects.get()
    nine = datetime(2026, 3, 5, 9, tzinfo=ZoneInfo("Asia/Tokyo"))
    assert run.result() == {
        "cron": "0 9 * * *",
        "scheduled_at": nine,
        "fired_at": nine,
        "schedule": schedule.pk,
        "data": {"team": 7},
    }
    assert run.trigger == "durable/cron"
    assert list(durable.runs_for(ada)) == [run]
    assert run.event.source == "cron"
    schedule.refresh_from_db()
    assert (schedule.owner, schedule.last_run, str(schedule)) == (ada, run.pk, "mine")
    assert (schedule.data, schedule.last_fired_at) == ({"team": 7}, nine)


def test_data_keeps_its_types(kit: Kit, report: durable.Function) -> None:
    data = {"since": NOON, "ids": (1, 2), "none": None}
    schedule = hourly(data=data)
    assert schedule.data == data
    kit.advance("1h")
    assert Run.objects.get().result()["data"] == data
    assert durable.schedules.get(schedule.pk).data == data


def test_run_without_data_gets_an_empty_dict(
    kit: Kit, report: durable.Function
) -> None:
    hourly()
    kit.advance("1h")
    assert Run.objects.get().result()["data"] == {}


def test_creating_is_part_of_the_callers_transaction(
    kit: Kit, report: durable.Function
) -> None:
    with transaction.atomic():
        hourly()
        transaction.set_rollback(True)
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ({"cron": "61 * * * *"}, durable.ConfigurationError, "The cron is"),
        ({"cron": "0 0 31 2 *"}, durable.ConfigurationError, "bad day-of-month"),
        ({"cron": None}, durable.ConfigurationError, "The cron is None"),
        ({"tz": "Mars/Olympus"}, durable.ConfigurationError, "time zone"),
        ({"data": {"x": object()}}, durable.PayloadError, "object"),
        ({"data": {"x": "a\0b"}}, durable.PayloadError, "NUL"),
        ({"data": [1]}, durable.PayloadError, "dict"),
        ({"data": {"x": "y" * 2**19}}, durable.PayloadError, "MAX_EVENT_BYTES"),
        ({"owner": User()}, durable.ConfigurationError, "saved model instance"),
        ({"owner": 7}, durable.ConfigurationError, "saved model instance"),
        ({"name": "a" * 256}, durable.ConfigurationError, "name of a schedule"),
        ({"jitter": "-1s"}, durable.ConfigurationError, "jitter"),
        ({"jitter": "2d"}, durable.ConfigurationError, "jitter"),
        ({"catch_up": "some"}, durable.ConfigurationError, "catch_up"),
        ({"overlap": "never"}, durable.ConfigurationError, "overlap"),
    ],
)
def test_invalid_schedule_is_refused_on_creation(
    kit: Kit,
    report: durable.Function,
    values: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words):
        durable.schedules.create(report, values.pop("cron", "0 * * * *"), **values)
    assert not Schedule.objects.exists()
    schedule = hourly()
    before = Schedule.objects.values().get()
    if values:
        with pytest.raises(error, match=words):
            schedule.change(**values)
    assert Schedule.objects.values().get() == before


def test_unknown_function_is_refused(kit: Kit) -> None:
    with pytest.raises(durable.UnknownFunction, match=r"nobody\.knows"):
        durable.schedules.create("nobody.knows", "@daily")


def test_schedules_are_found_by_owner_function_and_state(
    kit: Kit, report: durable.Function, ada: User
) -> None:
    other = durable.function(id="other")(lambda ctx: None)
    mine, nobodys = hourly(owner=ada), hourly()
    theirs = durable.schedules.create(other, "@daily", owner=ada)
    theirs.pause("holiday")
    find = durable.schedules.filter
    assert list(find(owner=ada)) == [mine, theirs]
    assert list(find(owner=None)) == [nobodys]
    assert list(find(function=report)) == list(find(function="report"))
    assert list(find(function=report)) == [mine, nobodys]
    assert list(find(paused=True)) == [theirs]
    assert list(find(paused=False, owner=ada)) == [mine]
    with pytest.raises(Schedule.DoesNotExist):
        durable.schedules.get(0)


def test_paused_schedule_fires_nothing_and_continues_from_its_resume(
    kit: Kit, report: durable.Function
) -> None:
    schedule = hourly(catch_up="all")
    assert schedule.pause("holiday") is True
    assert schedule.pause("again") is False
    assert (schedule.is_paused, schedule.reason) == (True, "holiday")
    assert schedule.next_fires() == []
    kit.advance("5h30m")
    assert not Run.objects.exists()
    assert schedule.resume() is True
    assert schedule.resume() is False
    kit.run_until_idle()
    assert not Run.objects.exists()
    kit.advance("30m")
    assert Run.objects.get().data["scheduled_at"] == NOON + 6 * HOUR


def test_pause_and_resume_work_on_a_queryset(
    kit: Kit, report: durable.Function, ada: User
) -> None:
    for _ in range(3):
        hourly(owner=ada)
    assert durable.schedules.filter(owner=ada).pause("left") == 3
    assert durable.schedules.filter(owner=ada).pause() == 0
    assert durable.schedules.filter(owner=ada).resume() == 3


def test_change_of_the_cron_counts_from_now(kit: Kit, report: durable.Function) -> None:
    schedule = hourly(data={"a": 1})
    schedule.change(cron="30 * * * *", tz="Asia/Kolkata", name="half")
    assert (schedule.cron, schedule.name) == ("30 * * * *", "half")
    kit.advance("1h")
    # Half past in Kolkata is the full hour in UTC.
    assert Run.objects.get().data["scheduled_at"] == NOON + HOUR
    assert Run.objects.get().data["data"] == {"a": 1}
    schedule.change(data={"a": 2})
    kit.advance("1h")
    last = Run.objects.order_by("pk").last()
    assert last is not None
    assert last.data["data"] == {"a": 2}


def test_unknown_change_is_refused(kit: Kit, report: durable.Function) -> None:
    with pytest.raises(durable.ConfigurationError, match="got function"):
        hourly().change(function="other")


def test_change_leaves_a_paused_schedule_paused(
    kit: Kit, report: durable.Function
) -> None:
    schedule = hourly()
    schedule.pause()
    schedule.change(cron="* * * * *")
    kit.advance("1h")
    assert not Run.objects.exists()
    schedule.resume()
    kit.advance("1m")
    assert Run.objects.count() == 1


def test_deleted_schedule_fires_no_more_and_its_runs_stay(
    kit: Kit, report: durable.Function
) -> None:
    schedule = hourly()
    kit.advance("1h")
    schedule.delete()
    kit.advance("5h")
    assert Run.objects.count() == 1


def test_next_times_are_in_the_schedules_zone(
    kit: Kit, report: durable.Function
) -> None:
    schedule = durable.schedules.create(report, "0 9 * * 1-5", tz="Europe/Paris")
    fires = schedule.next_fires(3)
    assert [f"{fire:%a %d %H:%M %Z}" for fire in fires] == [
        "Thu 05 09:00 CET", "Fri 06 09:00 CET", "Mon 09 09:00 CET"
    ]  # fmt: skip
    assert len(schedule.next_fires()) == 10


def test_run_can_be_started_at_once(
    kit: Kit, report: durable.Function, ada: User
) -> None:
    schedule = hourly(owner=ada, data={"a": 1})
    schedule.pause()
    kit.advance("90s")
    run = schedule.run_now()
    assert run is not None
    assert run.data["data"] == {"a": 1}
    assert run.wait().result()["scheduled_at"] == kit.now()
    assert list(durable.runs_for(ada)) == [run]
    assert schedule.last_run == run.pk
    # A second call in the same moment is another run, without an occurrence.
    again = schedule.run_now()
    assert again is not None
    assert again.pk != run.pk


def test_schedule_of_a_removed_function_waits_for_it(kit: Kit) -> None:
    with Kit(now=kit.now()) as code:
        durable.function(id="report")(lambda ctx: ctx.event.data)
        schedule = hourly()
        code.run_until_idle()
    assert not schedule.in_code
    kit.advance("90m")
    schedule.refresh_from_db()
    assert (schedule.missing_at, schedule.due_at) == (NOON + HOUR, None)
    assert schedule.next_fires() == []
    with CaptureQueriesContext(connection) as captured:
        assert tick.tick() == {}
    assert len(captured) == 1
    with pytest.raises(durable.UnknownFunction):
        schedule.run_now()
    durable.function(id="report")(lambda ctx: ctx.event.data)
    kit.advance("30m")
    assert [run.data["scheduled_at"] for run in Run.objects.all()] == [NOON + 2 * HOUR]
    schedule.refresh_from_db()
    assert schedule.missing_at is None


def test_schedule_paused_while_its_function_was_missing_remains_paused(
    kit: Kit,
) -> None:
    with Kit(now=kit.now()):
        durable.function(id="report")(lambda ctx: None)
        schedule = hourly()
    kit.advance("1h")
    schedule.pause()
    durable.function(id="report")(lambda ctx: None)
    kit.advance("5h")
    assert not Run.objects.exists()
    schedule.resume()
    kit.advance("1h")
    assert Run.objects.count() == 1


def test_declared_schedule_can_be_paused_and_is_otherwise_the_codes(kit: Kit) -> None:
    durable.function(id="clock", on=durable.Cron("0 * * * *"))(lambda ctx: None)
    kit.run_until_idle()
    (schedule,) = durable.schedules.filter(declared=True)
    with pytest.raises(durable.ConfigurationError, match="declared in the code"):
        schedule.change(cron="* * * * *")
    with pytest.raises(durable.ConfigurationError, match="declared in the code"):
        schedule.delete()
    schedule.pause()
    kit.advance("2h")
    assert not Run.objects.exists()
    schedule.resume()
    kit.advance("1h")
    run = schedule.run_now()
    assert run is not None
    assert set(run.data) == {"cron", "scheduled_at", "fired_at"}


def test_declared_schedule_follows_the_code(kit: Kit) -> None:
    for catch_up in ("skip", "all"):
        with Kit(now=kit.now()) as code:
            durable.function(
                id="clock", on=durable.Cron("@hourly", catch_up=catch_up, jitter="1m")
            )(lambda ctx: None)
            code.run_until_idle()
        schedule = Schedule.objects.get()
        assert (schedule.catch_up, schedule.jitter) == (catch_up, timedelta(minutes=1))
    # The code no longer has it, so it may be deleted.
    schedule.delete()
    assert not Schedule.objects.exists()


def test_user_may_have_the_same_cron_as_the_code(
    kit: Kit, every: Any, report: durable.Function
) -> None:
    durable.function(id="both", on=durable.Cron("0 * * * *"))(lambda ctx: None)
    durable.schedules.create("both", "0 * * * *")
    durable.schedules.create("both", "0 * * * *")
    kit.advance("1h")
    assert Run.objects.count() == Event.objects.count() == 3


def test_failing_schedule_does_not_stop_the_others(
    kit: Kit, report: durable.Function, caplog: pytest.LogCaptureFixture
) -> None:
    broken, fine = hourly(), hourly()
    # A row that no code would write.
    Schedule.objects.filter(pk=broken.pk).update(cron="no cron")
    kit.advance("1h")
    assert [run.data["schedule"] for run in Run.objects.all()] == [fine.pk]
    assert f"Processing schedule {broken.pk} failed" in caplog.text
    Schedule.objects.filter(pk=broken.pk).update(cron="0 * * * *")
    kit.advance("1m")
    assert Run.objects.count() == 2


def test_deleted_owner_becomes_none(
    kit: Kit, report: durable.Function, ada: User
) -> None:
    schedule = hourly(owner=ada)
    ada.delete()
    assert schedule.owner is None
    assert hourly().owner is None
    Schedule.objects.filter(pk=schedule.pk).update(owner_model="no.model")
    schedule.refresh_from_db()
    assert schedule.owner is None


@pytest.mark.parametrize("tz", ["Asia/Tokyo", ZoneInfo("Asia/Tokyo")])
def test_zone_may_be_a_name_or_an_object(
    kit: Kit, report: durable.Function, tz: Any
) -> None:
    durable.function(id="clock", on=durable.Cron("0 9 * * *", tz=tz))(lambda ctx: None)
    assert durable.schedules.create(report, "0 9 * * *", tz=tz).tz == "Asia/Tokyo"
    kit.advance("1d")
    assert Run.objects.count() == 2


def test_schedule_is_created_from_async_code(
    kit: Kit, report: durable.Function
) -> None:
    schedule = async_to_sync(durable.schedules.acreate)(
        "report", "0 * * * *", data={"a": 1}
    )
    assert durable.schedules.get(schedule.pk).data == {"a": 1}
