"""The pages of schedules: times, results and actions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from durable_jobs import clock, durable, ids
from durable_jobs.control import schedules as control
from durable_jobs.definitions.cron import CronExpression
from durable_jobs.models import Run, Schedule
from durable_jobs.queries import schedules
from durable_jobs.queries.schedules import MAX_OCCURRENCES
from durable_jobs.testing import Kit
from tests.admin.conftest import list_of, make_runs, page_of
from tests.admin.people import EVIL, harmless, labelled, member, page, posted, token

pytestmark = pytest.mark.django_db


def act(schedule: Schedule, action: str) -> str:
    return reverse("admin:durable_jobs_schedule_act", args=[schedule.pk, action])


@pytest.fixture
def durable_kit(db) -> Iterator[Kit]:
    """Return a kit at a known hour, so that no cron time passes by chance."""
    with Kit(now=datetime(2027, 3, 1, 8, 30, tzinfo=UTC)) as kit:
        yield kit


@pytest.fixture
def operator(db) -> Client:
    return member("ann", "view_run", "view_schedule", "pause_schedule", "run_schedule")


@pytest.fixture
def f(durable_kit):
    return durable.function(id="tests.f")(lambda ctx: None)


@pytest.fixture
def hourly(durable_kit, f) -> Schedule:
    return durable.schedules.create("tests.f", "0 * * * *", name="Hourly")


def ran(client: Client, schedule: Schedule, **values: str):
    shown = page(client, act(schedule, "run"))
    form = {"token": token(shown), "queued": token(shown, "queued"), **values}
    return form, posted(client, act(schedule, "run"), **form)


# Times


def test_times_are_in_the_schedules_zone_and_in_the_viewers(durable_kit, f, operator):
    schedule = durable.schedules.create("tests.f", "0 9 * * 1-5", tz="Asia/Tokyo")
    with override_settings(TIME_ZONE="America/New_York"):
        shown = page(operator, page_of(schedule))
    for text in (
        "At 09:00 on Monday through Friday", "Asia/Tokyo",
        "America/New_York (your time zone)", "Tue 02 Mar 2027 09:00 JST",
        "1 Mar 19:00:00", "15 h 30 m",
    ):  # fmt: skip
        assert text in shown.text, text
    assert (
        "At 09:00 on Monday through Friday" in page(operator, list_of("schedule")).text
    )


# Results


def test_strip_shows_the_result_of_each_time(durable_kit, operator):
    results = iter([None, OSError("x"), None, None, None])

    @durable.function(id="tests.g", retries=0)
    def g(ctx):
        if error := next(results):
            raise error

    schedule = durable.schedules.create("tests.g", "0 * * * *")
    durable_kit.advance("2h")
    durable_kit.advance("2h", run=False)  # an outage: missed times are not caught up
    durable_kit.advance("1h")
    marks = schedules.history(schedule)
    assert [(mark.at.hour, mark.run and mark.run.status) for mark in marks] == [
        (9, "completed"), (10, "failed"), (11, None), (12, None), (13, "completed")
    ]  # fmt: skip
    shown = page(operator, page_of(schedule))
    assert len(shown.classes("durable-mark ")) == 5
    assert len(shown.classes("durable-mark-failed")) == 1
    assert len(shown.classes("durable-mark-none")) == 2
    assert "2027-03-01 10:00:00 UTC: Failed" in shown.text
    assert "2027-03-01 11:00:00 UTC: no run" in shown.text
    assert shown.rows("run") == [page_of(mark.run) for mark in marks if mark.run]


def test_runs_by_hand_and_of_an_earlier_cron_are_marked(durable_kit, hourly):
    durable_kit.advance("1h")
    hourly.refresh_from_db()
    hourly.run_now()
    other = durable.schedules.create("tests.f", "@daily")
    other.run_now()
    durable_kit.run_until_idle()
    assert [mark.manual for mark in schedules.history(hourly)] == [False, True]
    assert [mark.manual for mark in schedules.history(other)] == [True]
    hourly.change(cron="30 * * * *")
    durable_kit.advance("1h")
    hourly.refresh_from_db()
    with_runs = [mark for mark in schedules.history(hourly) if mark.run]
    assert [mark.manual for mark in with_runs] == [True, True, False]


def test_strip_is_bounded(durable_kit, f, operator):
    schedule = durable.schedules.create("tests.f", "* * * * *")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            page(operator, page_of(schedule))
        return len(captured)

    durable_kit.advance("2m")
    # Django has loaded its metadata of models by then
    page(operator, page_of(schedule))
    few = queries()
    durable_kit.advance("40m")
    marks = schedules.history(schedule)
    assert len(marks) == MAX_OCCURRENCES
    assert all(mark.run for mark in marks)
    assert marks[-1].at == durable_kit.now().replace(second=0, microsecond=0)
    assert queries() == few
    # The session, the viewer and their permissions; the schedule and its queued
    # occurrences, runs of its times and others.
    assert few == 8


def test_schedule_that_never_fired_has_no_strip(hourly, operator):
    assert "Recent runs" not in page(operator, page_of(hourly)).text


@pytest.mark.parametrize(
    ("cron", "tz"),
    [
        ("* * * * *", "UTC"), ("*/15 * * * *", "Europe/Paris"),
        ("30 2 * * *", "Europe/Paris"), ("0 9 * * 1-5", "America/New_York"),
        ("*/5 9-16 * * 1-5", "UTC"), ("* * * 1 *", "UTC"), ("0 0 1 * *", "UTC"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "now",
    [
        datetime(2027, 3, 28, 12, 7, 3, tzinfo=UTC),
        datetime(2027, 10, 31, 1, 0, tzinfo=UTC),
        datetime(2028, 1, 1, tzinfo=UTC),
    ],
)
def test_past_times_are_those_of_the_cron(cron, tz, now):
    known = CronExpression(cron, tz)
    back = list(schedules._backwards(known, now, None))[::-1]
    assert back
    assert back[-1] <= now < known.next_after(back[-1])
    for earlier, later in itertools.pairwise(back):
        assert known.next_after(earlier) == later
    if "* 1 *" not in cron:
        assert len(back) == min(
            MAX_OCCURRENCES, len(back) if cron.startswith("0 0 1") else MAX_OCCURRENCES
        )


# Actions


def test_schedule_is_run_now_once_for_a_form(durable_kit, hourly, operator):
    assert act(hourly, "run") in page(operator, page_of(hourly)).links()
    assert labelled(page(operator, act(hourly, "run")))
    form, response = ran(operator, hourly, reason="the report was lost")
    run = Run.objects.get()
    assert response["Location"] == page_of(run)
    again = posted(operator, act(hourly, "run"), **form)
    assert again["Location"] == page_of(run)
    assert "sent before" in page(operator, page_of(run)).text
    assert Run.objects.count() == 1
    texts = {e.object_id: e.change_message for e in LogEntry.objects.all()}
    assert texts == {
        str(hourly.pk): f"Run {run.pk} started: the report was lost",
        str(run.pk): "Run started from its schedule: the report was lost",
    }
    durable_kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "completed"


def test_run_that_has_to_wait_is_queued_once(durable_kit, operator):
    @durable.function(id="tests.slow")
    def slow(ctx):
        ctx.step.sleep("s", "1h")

    schedule = durable.schedules.create("tests.slow", "@daily", overlap="queue")
    ran(operator, schedule)
    durable_kit.run_until_idle()
    form, response = ran(operator, schedule)
    assert response["Location"] == page_of(schedule)
    assert "when the previous run has ended" in page(operator, page_of(schedule)).text
    again = posted(operator, act(schedule, "run"), **form)
    assert "have changed" in page(operator, again["Location"]).text
    schedule.refresh_from_db()
    assert len(schedule.queued_occurrences) == 1
    durable_kit.advance("2h1m")
    assert Run.objects.count() == 2


def test_schedule_is_paused_and_resumed_with_a_reason(durable_kit, hourly, operator):
    assert act(hourly, "pause") in page(operator, page_of(hourly)).links()
    posted(operator, act(hourly, "pause"), reason="on holiday")
    hourly.refresh_from_db()
    assert hourly.is_paused
    shown = page(operator, page_of(hourly))
    assert "paused: on holiday" in shown.text
    assert act(hourly, "pause") not in shown.links()
    posted(operator, act(hourly, "resume"), reason="back")
    hourly.refresh_from_db()
    assert not hourly.is_paused
    texts = [e.change_message for e in LogEntry.objects.order_by("pk")]
    assert texts == ["Paused: on holiday", "Resumed: back"]
    history = page_of(hourly).replace("/change/", "/history/")
    assert "Paused: on holiday" in page(operator, history).text


def test_stale_form_is_reported(durable_kit, hourly, operator):
    hourly.pause("first")
    assert "already paused" in page(operator, act(hourly, "pause")).text
    response = posted(operator, act(hourly, "pause"), reason="second")
    assert "is already paused" in page(operator, response["Location"]).text
    hourly.refresh_from_db()
    assert hourly.reason == "first"
    hourly.resume()
    response = posted(operator, act(hourly, "resume"))
    assert "is not paused" in page(operator, response["Location"]).text
    assert not LogEntry.objects.exists()


def test_schedule_of_a_removed_function_cannot_be_run(durable_kit, operator):
    with Kit(now=durable_kit.now()):
        durable.function(id="tests.gone")(lambda ctx: None)
        schedule = durable.schedules.create("tests.gone", "@daily")
    assert act(schedule, "run") not in page(operator, page_of(schedule)).links()
    form = {"token": str(ids.new_id()), "queued": "0"}
    response = posted(operator, act(schedule, "run"), **form)
    assert response.status_code == 422
    assert "schedule is not deployed" in response.content.decode()
    assert posted(operator, act(schedule, "pause")).status_code == 302


@pytest.mark.parametrize(
    "form",
    [{}, {"token": "x", "queued": "0"}, {"token": "00000000", "queued": "-1"},
     {"queued": "0"}],
)  # fmt: skip
def test_forged_form_starts_nothing(hourly, operator, form):
    assert posted(operator, act(hourly, "run"), **form).status_code == 422
    assert not Run.objects.exists()


def test_full_queue_of_occurrences_is_reported(durable_kit, operator, monkeypatch):
    @durable.function(id="tests.slow")
    def slow(ctx):
        ctx.step.sleep("s", "1h")

    monkeypatch.setattr(control, "MAX_QUEUED", 0)
    schedule = durable.schedules.create("tests.slow", "@daily", overlap="queue")
    ran(operator, schedule)
    durable_kit.run_until_idle()
    _form, response = ran(operator, schedule)
    assert response.status_code == 422
    assert "queued occurrences" in response.content.decode()


# Permissions


@pytest.mark.parametrize("action", ["run", "pause", "resume"])
@pytest.mark.parametrize(
    "permissions",
    [
        ("view_schedule",), ("view_schedule", "start_run", "pause_function"),
        ("run_schedule", "pause_schedule", "view_run"),
    ],
)  # fmt: skip
def test_user_without_permission_is_refused_and_sees_no_button(
    hourly, action, permissions
):
    viewer = member("bob", *permissions)
    form = {"token": str(ids.new_id()), "queued": "0"}
    assert viewer.get(act(hourly, action)).status_code == 403
    assert viewer.post(act(hourly, action), form).status_code == 403
    if "view_schedule" in permissions:
        assert "/act/" not in " ".join(page(viewer, page_of(hourly)).links())
    hourly.refresh_from_db()
    assert not hourly.is_paused
    assert not Run.objects.exists()


@pytest.mark.parametrize(
    ("permission", "actions"),
    [("run_schedule", {"run"}), ("pause_schedule", {"pause"})],
)
def test_actions_have_separate_permissions(hourly, permission, actions):
    viewer = member("bob", "view_schedule", permission)
    links = page(viewer, page_of(hourly)).links("/act/")
    assert {link.rstrip("/").rpartition("/")[2] for link in links} == actions


def test_anonymous_users_and_other_sites_are_refused(hourly, client):
    member("ann", "view_schedule", "pause_schedule", "run_schedule")
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    for action in ("run", "pause"):
        assert "/login/" in client.post(act(hourly, action), {})["Location"]
        assert strict.post(act(hourly, action), {}).status_code == 403


def test_missing_schedule_is_not_found(hourly, operator):
    base = list_of("schedule")
    for place in ("0/act/run/", "9" * 40 + "/act/pause/", f"{hourly.pk}/act/eat/"):
        assert operator.get(f"{base}{place}").status_code == 404
        assert operator.post(f"{base}{place}", {}).status_code == 404
    hourly.delete()
    for action in ("run", "pause", "resume"):
        address = reverse("admin:durable_jobs_schedule_act", args=[1, action])
        assert operator.post(address, {}).status_code == 404


def test_markup_is_text(durable_kit, operator):
    now = clock.now()
    schedule = Schedule.objects.create(
        function=EVIL, name=EVIL, cron=EVIL, tz=EVIL[:60], reason=EVIL, paused_at=now,
        next_occurrence=now,
    )  # fmt: skip
    make_runs(
        1,
        function=EVIL,
        status="failed",
        reason=EVIL,
        event_meta={"schedule": schedule.pk},
    )
    for address in (page_of(schedule), act(schedule, "resume"), list_of("schedule")):
        shown = page(operator, address)
        assert harmless(shown)
        assert "{{ 7|add:7 }}" in shown.text
