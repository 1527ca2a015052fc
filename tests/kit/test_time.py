"""The kit's clock stands still until it is moved."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from durable_jobs import clock, durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db

START = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def test_clock_stands_still(durable_kit: Kit) -> None:
    first = durable_kit.now()
    durable_kit.run_until_idle()
    assert durable_kit.now() == clock.now() == first


def test_clock_begins_now_or_at_a_given_time() -> None:
    real = clock.now()
    with Kit() as kit:
        assert abs(kit.now() - real) < timedelta(minutes=1)
    with Kit(now=START) as kit:
        assert kit.now() == clock.now() == START
    assert clock.now() >= real


def test_naive_beginning_is_refused() -> None:
    with pytest.raises(durable.ConfigurationError, match="aware"):
        Kit(now=datetime(2026, 3, 4))  # noqa: DTZ001  # wrong on purpose


@pytest.mark.parametrize("length", ["1h", 3600, timedelta(hours=1), "60m"])
def test_advance_takes_any_duration(length: Any) -> None:
    with Kit(now=START) as kit:
        kit.advance(length)
        assert kit.now() == START + HOUR


def test_timer_due_on_the_way_fires_at_its_own_time() -> None:
    with Kit(now=START) as kit:
        moments: list[datetime] = []

        @durable.function(id="nap", retries=1, backoff=durable.Backoff.fixed("10m"))
        def nap(ctx):
            ctx.step.run("look", lambda: moments.append(kit.now()))
            ctx.step.sleep("nap", "1h")
            ctx.step.run("look", lambda: moments.append(kit.now()))
            ctx.step.wait_for_event("go", "a/go", timeout="2h")
            ctx.step.run("look", lambda: moments.append(kit.now()))
            if ctx.attempt == 0:
                raise ValueError("again")
            ctx.step.run("look", lambda: moments.append(kit.now()))

        nap.enqueue()
        kit.advance("1d")
        assert moments == [
            START, START + HOUR, START + 3 * HOUR, START + 3 * HOUR + HOUR / 6
        ]  # fmt: skip
        assert kit.now() == START + timedelta(days=1)


def test_timer_due_at_the_very_end_fires(durable_kit: Kit) -> None:
    nap = durable.function(id="nap")(lambda ctx: ctx.step.sleep("nap", "1h"))
    run = nap.enqueue()
    durable_kit.advance("59m59s")
    run.refresh_from_db()
    assert run.status == "waiting"
    durable_kit.advance("1s")
    run.refresh_from_db()
    assert run.status == "completed"


def test_outage_executes_nothing_until_the_test_does(durable_kit: Kit) -> None:
    calls: list[datetime] = []
    nap = durable.function(id="nap")(
        lambda ctx: [ctx.step.sleep("nap", "1h"), calls.append(durable_kit.now())]
    )
    nap.enqueue()
    durable_kit.run_until_idle()
    durable_kit.advance("3h", run=False)
    assert calls == []
    now = durable_kit.now()
    durable_kit.run_until_idle()
    assert calls == [now]


def test_travel_to_a_moment() -> None:
    with Kit(now=START) as kit:
        nap = durable.function(id="nap")(lambda ctx: ctx.step.sleep("nap", "1h"))
        run = nap.enqueue()
        kit.travel_to(START + 2 * HOUR)
        run.refresh_from_db()
        assert run.ended_at == START + HOUR
        kit.travel_to((START + 3 * HOUR).astimezone(ZoneInfo("Asia/Tokyo")))
        assert kit.now() == START + 3 * HOUR
        kit.travel_to(kit.now())
        assert kit.now() == START + 3 * HOUR
        kit.travel_to(START + 4 * HOUR, run=False)
        assert kit.now() == START + 4 * HOUR


@pytest.mark.parametrize(
    "wrong",
    [START - HOUR, datetime(2027, 1, 1)],  # noqa: DTZ001  # wrong on purpose
    ids=["the past", "naive"],
)
def test_wrong_moments_are_refused(wrong: datetime) -> None:
    with Kit(now=START) as kit:
        with pytest.raises(durable.ConfigurationError, match="aware datetime"):
            kit.travel_to(wrong)
        with pytest.raises(durable.ConfigurationError):
            kit.advance("-1h")
        assert kit.now() == START


def test_run_until_idle_returns_the_number_of_attempts(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    assert durable_kit.run_until_idle() == 0
    for _ in range(20):
        look.enqueue()
    assert durable_kit.run_until_idle() == 20
    assert durable_kit.run_until_idle() == 0


def test_runs_execute_only_on_request(durable_kit: Kit) -> None:
    durable.function(id="look", on=durable.Event("a/b"))(lambda ctx: 1)
    durable_kit.send("a/b")
    assert Run.objects.get().status == "queued"


def test_years_go_by_in_no_time(durable_kit: Kit) -> None:
    @durable.function(id="patient")
    def patient(ctx):
        for year in range(10):
            ctx.step.sleep(f"year {year}", "365d")
        return "patient"

    run = patient.enqueue()
    durable_kit.advance(timedelta(days=3650))
    run.refresh_from_db()
    assert run.result() == "patient"


def test_every_queue_is_served(durable_kit: Kit) -> None:
    for queue in ("default", "slow", "fast"):
        durable.function(id=queue, queue=queue)(lambda ctx: None).enqueue()
    assert durable_kit.run_until_idle() == 3
