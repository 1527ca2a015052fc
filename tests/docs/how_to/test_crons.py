"""Examples of docs/how-to/crons.md."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.contrib.auth.models import User

from durable_jobs import durable
from durable_jobs.models import Run
from tests.docs.examples import section


@section("Start functions by the clock")
def test_start_functions_by_the_clock(run_example, kit):
    run_example()
    kit.run_until_idle()
    kit.travel_to(datetime(2030, 3, 4, 7, 59, tzinfo=UTC), run=False)
    kit.run_until_idle()
    assert not Run.objects.exists()
    kit.advance("2m")
    (run,) = Run.objects.all()
    assert run.trigger == "durable/cron"
    assert run.data["scheduled_at"] == datetime(2030, 3, 4, 8, tzinfo=UTC)


@section("Missed occurrences")
def test_times_that_pass_while_nothing_ticks(run_example, kit):
    run_example()
    kit.run_until_idle()
    kit.advance("5h", run=False)
    kit.run_until_idle()
    assert Run.objects.count() == 5


@section("Overlapping runs")
def test_a_time_at_which_the_earlier_run_goes_on(run_example, kit):
    run_example()
    kit.run_until_idle()
    kit.advance("4h")
    first, second = Run.objects.exclude(started_at=None).order_by("pk")[:2]
    assert second.started_at - first.started_at == timedelta(minutes=90)


@section("Spread the starts")
def test_do_not_start_all_at_once(run_example, kit):
    run_example()
    kit.run_until_idle()
    kit.advance("2d")
    run = Run.objects.first()
    late = run.data["fired_at"] - run.data["scheduled_at"]
    assert timedelta() <= late < timedelta(minutes=10)


@section("Let users create schedules")
def test_let_users_make_schedules(run_example, shop, kit):
    run_example()
    user = User.objects.create(username="ada")
    pk = shop.subscribe(user, [1, 2])
    kit.advance("8d")
    run = Run.objects.filter(function="shop.send_report").first()
    assert run.result() == [1, 2]
    assert run in durable.runs_for(user)
    assert run.data["schedule"] == pk
    schedule = durable.schedules.get(pk)
    shop.schedule = schedule
    shop.user = user
    run_example()

    def filled(**values):
        form = shop.ScheduleForm(values)
        assert form.is_valid()
        return form

    assert filled(cron="0 9 * * *", tz="UTC").save(user)
    wrong = filled(cron="at nine", tz="UTC")
    assert not wrong.save(user)
    assert "expected five fields" in str(wrong.errors)
    run_example()
    assert len(shop.mine(user)) == 2
    shop.on_holiday(user)
    count = Run.objects.count()
    kit.advance("10d")
    assert Run.objects.count() == count
    shop.back(user)
    schedule.refresh_from_db()
    schedule.change(cron="0 9 * * 1", data={"teams": [3]})
    run = schedule.run_now()
    assert run.wait().result() == [3]
    schedule.delete()
