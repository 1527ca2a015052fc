"""Functions that no worker has: recorded, reported after a while, and resumed."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from pytest_django import Settings

from durable_jobs import clock, durable
from durable_jobs.definitions.registry import registry
from durable_jobs.maintenance import doctor, heartbeats, missing_functions
from durable_jobs.models import MissingFunction, Run, Schedule, Worker
from durable_jobs.queries.overview import overview
from durable_jobs.testing import Kit
from durable_jobs.worker.watchdog import Watchdog
from tests.ending.test_unknown_functions import deployed, started

pytestmark = pytest.mark.django_db


def worker(name: str = "w", **values: Any) -> None:
    """Record a heartbeat of a worker with the functions of this process."""
    now = clock.now()
    row = {"kind": "worker", "seen_at": now, "started_at": now, "queues": ["default"]}
    row |= {"functions": registry.ids(), **values}
    Worker.objects.update_or_create(name=name, defaults=row)


def notices() -> list[str]:
    """Return the doctor's messages about unknown functions."""
    found = doctor.examine().findings
    return [one.message for one in found if one.check == "unknown-function"]


def needs_attention() -> list[str]:
    return [one.name for one in overview().attention if one.what == "unknown"]


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Any:
    """Return how many warnings said that no worker has a function."""
    caplog.set_level(logging.WARNING, logger="durable_jobs")

    def count() -> int:
        said = [one.getMessage() for one in caplog.records]
        return sum("No worker has had the function 'shop.new'" in one for one in said)

    return count


@pytest.mark.parametrize("options", [{}, {"concurrency": durable.Concurrency(1)}])
def test_function_without_a_worker_needs_attention_after_unknown_after(
    warned: Any, options: dict[str, Any]
) -> None:
    run = started([], **options)
    with Kit() as kit:
        worker()
        kit.run_until_idle()
        kit.advance("9m")
        worker()
        assert (notices(), needs_attention(), warned()) == ([], [], 0)
        kit.advance("2m")
        worker()
        for _ in range(3):
            kit.advance("1m")
            worker()
        (said,) = notices()
        assert "'shop.new', which no worker has had for 1" in said
        assert needs_attention() == ["shop.new"]
        assert warned() == 1
        # Runs that wait for a deploy are no reason for a restart.
        assert doctor.readiness().healthy
        assert not [one for one in doctor.examine().findings if one.problem]
        found = run.explain()
        assert found.state == "unknown-function"
        assert "No worker has the function 'shop.new' since 20" in str(found)
        run.refresh_from_db()
        assert run.status == "queued"


def test_unknown_after_is_a_setting(settings: Settings, warned: Any) -> None:
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "UNKNOWN_AFTER": "1m"}
    started([])
    with Kit() as kit:
        kit.advance("90s")
        assert len(notices()) == 1
        assert warned() == 1


def test_function_that_another_worker_has_needs_no_attention(warned: Any) -> None:
    run = started([])
    with Kit() as kit:
        for _ in range(30):
            worker("new", functions=[*registry.ids(), "shop.new"])
            kit.advance("30s")
        worker("new", functions=[*registry.ids(), "shop.new"])
        assert (notices(), needs_attention(), warned()) == ([], [], 0)
        assert run.explain().state == "ready"
        assert not MissingFunction.objects.exists()


def test_worker_of_an_earlier_release_may_have_any_function(warned: Any) -> None:
    started([])
    with Kit() as kit:
        for _ in range(30):
            worker("old", functions=None)
            kit.advance("30s")
        worker("old", functions=None)
        assert (notices(), needs_attention(), warned()) == ([], [], 0)


def test_attention_ends_when_a_worker_has_the_function(warned: Any) -> None:
    run = started([])
    with Kit() as kit:
        kit.advance("15m")
        assert len(notices()) == 1
        now = kit.now()
    with Kit(now=now) as kit:
        deployed([])
        kit.advance("2h")
        assert (notices(), needs_attention()) == ([], [])
        assert not MissingFunction.objects.exists()
    run.refresh_from_db()
    assert run.result() == "done"


def test_attention_ends_with_the_runs(warned: Any) -> None:
    run = started([])
    with Kit() as kit:
        kit.advance("15m")
        run.cancel("never")
        kit.advance("1m")
        assert (notices(), needs_attention()) == ([], [])
        assert not MissingFunction.objects.exists()


REASON = "The code has no durable function 'shop.new'. Resume the run when it is …"


def test_run_paused_by_an_earlier_release_resumes() -> None:
    calls: list[str] = []
    run = started(calls)
    Run.objects.update(status="paused", reason=REASON)
    with Kit() as kit:
        kit.advance("5m")
        run.refresh_from_db()
        assert run.status == "paused"
        now = kit.now()
    missing_functions._searched_at = float("-inf")
    with Kit(now=now) as kit:
        deployed(calls)
        kit.advance("1m")
        kit.advance("2h")
    run.refresh_from_db()
    assert run.result() == "done"


def test_run_that_a_person_paused_stays_paused() -> None:
    run = started([])
    run.pause("wait for the audit")
    with Kit() as kit:
        deployed([])
        assert missing_functions.resume(registry.ids()) == 0
        kit.run_until_idle()
    run.refresh_from_db()
    assert run.status == "paused"


@pytest.mark.django_db(transaction=True)  # the watchdog closes its connections
def test_started_worker_resumes_the_runs_that_waited_for_it() -> None:
    run = started([])
    Run.objects.update(status="paused", reason=REASON)
    MissingFunction.objects.create(function="shop.new", since=clock.now())
    with Kit():
        deployed([])
        watchdog = Watchdog(["default"], lambda: True, lambda: None, name="w")
        watchdog.stop()
        watchdog._loop()  # it begins, and ends at once
        assert not MissingFunction.objects.exists()
        run.refresh_from_db()
        assert run.status == "queued"


def test_worker_that_starts_leaves_its_functions_and_queues() -> None:
    heartbeats.heartbeat("w", "worker", ["old"], ["tests.old"])
    with Kit():
        deployed([])
        Watchdog(["default"], lambda: True, lambda: None, name="w")._heartbeat()
        row = Worker.objects.get(name="w")
        assert "shop.new" in row.functions
        assert row.queues == ["default"]


def test_doctor_names_queues_that_no_living_worker_serves() -> None:
    with Kit() as kit:
        durable.function(id="slow", queue="reports")(lambda ctx: None).enqueue()
        worker()
        found = {one.check: one for one in doctor.examine().findings}
        assert found["unserved-queue"].problem
        assert "'reports', and 1 runs are ready" in found["unserved-queue"].message
        worker("r", queues=["reports"])
        assert "unserved-queue" not in {one.check for one in doctor.examine().findings}
        kit.advance("61s")
        worker()
        found = {one.check: one for one in doctor.examine().findings}
        assert found["unserved-queue"].message.endswith("serves the queue 'reports'")
        assert not found["unserved-queue"].problem


def test_schedule_known_only_to_another_worker_is_left_to_it() -> None:
    def deploy() -> None:
        durable.function(id="shop.report", on=durable.Cron("*/5 * * * *"))(
            lambda ctx: "done"
        )

    with Kit() as kit:
        deploy()
        kit.run_until_idle()
        now = kit.now()
    with Kit(now=now) as kit:  # the tick of the old release
        due = Schedule.objects.get(function="shop.report").due_at
        kit.travel_to(due, run=False)
        worker("new", functions=["shop.report"])
        kit.run_until_idle()
        schedule = Schedule.objects.get(function="shop.report")
        assert schedule.missing_at is None
        assert schedule.due_at == kit.now() + timedelta(seconds=2)
        now = kit.now()
    with Kit(now=now) as kit:
        deploy()
        kit.advance("2s")
        assert Run.objects.get(function="shop.report").result() == "done"
