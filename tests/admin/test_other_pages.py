"""The pages of a step, an event, a schedule and a worker."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from durable_jobs import clock, durable
from durable_jobs.admin.related import MOST
from durable_jobs.admin.runs.steps import MOST as MOST_ATTEMPTS
from durable_jobs.models import Event, FailedAttempt, Run, Schedule, Step, Worker
from durable_jobs.testing import Kit
from tests.admin.conftest import list_of, make_events, make_runs, make_steps, page_of

pytestmark = pytest.mark.django_db


def test_step_shows_its_result_its_failures_and_its_place(durable_kit, get):
    failures = [OSError("first"), OSError("second")]

    def flaky():
        if failures:
            raise failures.pop(0)
        return {"answer": 42}

    @durable.function(id="tests.f", backoff=durable.Backoff.fixed("5s"))
    def f(ctx):
        with ctx.step.group("around"):
            ctx.step.run("flaky", flaky)

    run = f.enqueue({})
    durable_kit.advance("1m")
    group, step = Step.objects.order_by("position")
    page = get(page_of(step))
    for text in ("flaky (run)", "Completed", '"answer": 42', "Attempt 1", "Attempt 2"):
        assert text in page.text
    assert page.text.index("OSError second") < page.text.index("OSError first")
    assert page_of(run) in page.links()
    assert page_of(group) in page.links()


def test_step_shows_its_wait_and_its_children(durable_kit, get):
    @durable.function(id="tests.child")
    def child(ctx):
        ctx.step.wait_for_signal("s", "go")

    @durable.function(id="tests.parent")
    def parent(ctx):
        ctx.step.invoke("call", child, {}, timeout="1h")

    run = parent.enqueue({})
    durable_kit.run_until_idle()
    below = Run.objects.get(function="tests.child")
    page = get(page_of(run.steps.get()))
    assert "waits for the run" in page.text
    assert "in 1 h 00 m" in page.text
    assert page_of(below) in page.links()
    assert "waits for the signal go" in get(page_of(below.steps.get())).text


def test_page_of_a_step_asks_as_often_for_many_rows_as_for_few(viewer):
    client = viewer("run", "step")
    run = make_runs(1)[0]

    def queries(count, number):
        step = make_steps(run, number + 1)[-1] if number else make_steps(run, 1)[0]
        FailedAttempt.objects.bulk_create(
            FailedAttempt(
                run=run, step=step.key, number=n, error={}, ended_at=clock.now()
            )
            for n in range(count)
        )
        for _ in range(count):
            make_runs(1, parent_id=run.pk, parent_step=step.key)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(page_of(step)).status_code == 200
        Step.objects.all().delete()
        return len(captured)

    few = queries(1, 0)
    assert queries(40, 1) == few
    # The session, the viewer, their permissions; the step, waits, attempts, children.
    assert few == 8


def test_failed_attempts_are_limited_to_a_page(get):
    run = make_runs(1)[0]
    step = make_steps(run, 1)[0]
    FailedAttempt.objects.bulk_create(
        FailedAttempt(run=run, step=step.key, number=n, error={}, ended_at=clock.now())
        for n in range(MOST_ATTEMPTS + 5)
    )
    page = get(page_of(step))
    assert sum(tag == "summary" for tag, _ in page.tags) == MOST_ATTEMPTS
    assert "Attempt 30" in page.text


def test_event_shows_its_data_and_the_runs_it_started(durable_kit, get):
    @durable.function(id="tests.f", on=durable.Event("tests/go"))
    def f(ctx):
        return None

    event = durable_kit.send("tests/go", {"a": [1, {"b": None}]}, user={"id": 7})
    durable_kit.run_until_idle()
    page = get(page_of(Event.objects.get(pk=event)))
    for text in ("tests/go", "send", '"a":', '"b": null', '"id": 7', "Completed"):
        assert text in page.text
    assert page_of(Run.objects.get()) in page.links()


def test_page_of_an_event_asks_as_often_for_many_rows_as_for_few(viewer):
    client = viewer("run", "event")
    event = make_events(1)[0]

    def queries(count):
        make_runs(count, event_id=event.pk)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(page_of(event)).status_code == 200
        return len(captured)

    few = queries(1)
    assert queries(MOST + 10) == few
    # The session, the viewer and their permissions; the event, and the runs that it
    # started, resumed and ended.
    assert few == 8
    assert (
        f"{list_of('run')}?event={event.pk}"
        in client.get(page_of(event)).content.decode()
    )


@pytest.mark.parametrize(
    "key", ["a/b", "ü 1", "_2F", "a?b=c#d", "50%", '"><i>', "a" * 255]
)
def test_event_with_an_id_of_the_senders_own_has_a_page(get, key):
    event = Event.objects.create(
        id=key, name="tests/named", ts=clock.now(), received_at=clock.now()
    )
    make_runs(1, event_id=key)
    (address,) = get(list_of("event")).rows("event")
    page = get(address)
    assert key in page.text
    assert get(f"{list_of('event')}?q=tests/named").rows("event") == [address]
    assert page_of(Run.objects.get()) in page.links()
    assert event.pk == key


def test_schedules_and_workers_have_pages(get):
    now = clock.now()
    schedule = Schedule.objects.create(
        function="tests.f", cron="@daily", tz="UTC", next_occurrence=now, due_at=now
    )
    worker = Worker.objects.create(
        name="w/1", kind="worker", seen_at=now, started_at=now
    )
    assert "@daily" in get(page_of(schedule)).text
    from django.contrib.admin.utils import quote

    assert "w/1" in get(f"{list_of('worker')}{quote(worker.pk)}/change/").text


def test_schedule_shows_owner_function_and_times(durable_kit, get):
    durable.function(id="tests.f")(lambda ctx: None)
    schedule = durable.schedules.create(
        "tests.f",
        "0 9 * * 1-5",
        tz="Europe/Paris",
        owner=User.objects.create(pk=77, username="ada"),
        name="Morning report",
        data={"team": 7},
        jitter="5m",
    )
    page = get(page_of(schedule))
    for text in (
        "Morning report", "At 09:00 on Monday through Friday", "auth.user 77",
        '"team": 7', "5 m 00 s", "active", "09:00 CE",
    ):  # fmt: skip
        assert text in page.text, text
    assert page_of(schedule) in get(list_of("schedule")).links()
    schedule.pause("on holiday")
    for address in (page_of(schedule), list_of("schedule")):
        assert "paused: on holiday" in get(address).text


def test_schedule_of_a_removed_function_says_so(durable_kit, get):
    with Kit(now=durable_kit.now()):
        durable.function(id="tests.gone")(lambda ctx: None)
        schedule = durable.schedules.create("tests.gone", "@daily")
    assert "not deployed" in get(page_of(schedule)).text
    assert "not deployed" in get(list_of("schedule")).text


def test_schedules_are_found_by_their_owner(durable_kit, get):
    durable.function(id="tests.f")(lambda ctx: None)
    mine, theirs = (
        durable.schedules.create(
            "tests.f", "@daily", owner=User.objects.create(pk=pk, username=str(pk))
        )
        for pk in (7, 8)
    )
    links = get(f"{list_of('schedule')}?q=auth.user+7").links()
    assert page_of(mine) in links
    assert page_of(theirs) not in links
