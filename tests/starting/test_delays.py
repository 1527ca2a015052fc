"""Delayed starts and priorities."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from durable_jobs import durable
from durable_jobs.models import Event, Run
from durable_jobs.testing import Kit

HOUR = timedelta(hours=1)


@pytest.fixture
def began(durable_kit: Kit) -> dict[str, datetime]:
    """Declare a function on ``a/b`` and return the start times of its runs, by name."""
    found: dict[str, datetime] = {}

    @durable.function(id="look", on=durable.Event("a/b"))
    def look(ctx):
        found[ctx.event.data["name"]] = durable_kit.now()

    found_function = look
    assert found_function.id == "look"
    return found


def test_future_ts_delays_the_start(
    durable_kit: Kit, began: dict[str, datetime]
) -> None:
    start = durable_kit.now()
    durable_kit.send("a/b", {"name": "late"}, ts=start + HOUR)
    durable_kit.send("a/b", {"name": "now"})
    durable_kit.send("a/b", {"name": "past"}, ts=start - HOUR)
    durable_kit.advance("59m")
    assert began == {"now": start, "past": start}
    assert Event.objects.count() == 3
    durable_kit.advance("2m")
    assert began["late"] == start + HOUR


def test_future_ts_delays_the_wake_up(durable_kit: Kit) -> None:
    @durable.function(id="wait")
    def wait(ctx):
        event = ctx.step.wait_for_event("go", "a/go")
        return [event.ts, durable_kit.now()]

    run = wait.enqueue()
    moment = durable_kit.now() + HOUR
    durable_kit.send("a/go", ts=moment)
    durable_kit.advance("30m")
    run.refresh_from_db()
    assert run.status == "waiting"
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == [moment, moment]


def test_future_ts_delays_the_cancelling(durable_kit: Kit) -> None:
    @durable.function(id="nap", cancel_on=durable.CancelOn("a/stop"))
    def nap(ctx):
        ctx.step.sleep("long", "1d")

    run = nap.enqueue()
    durable_kit.send("a/stop", ts=durable_kit.now() + HOUR)
    durable_kit.advance("30m")
    run.refresh_from_db()
    assert run.status == "waiting"
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.status == "cancelled"
    assert run.ended_at == run.queued_at + HOUR


def test_zone_of_ts_does_not_matter(
    durable_kit: Kit, began: dict[str, datetime]
) -> None:
    from zoneinfo import ZoneInfo

    moment = (durable_kit.now() + HOUR).astimezone(ZoneInfo("Asia/Tokyo"))
    durable_kit.send("a/b", {"name": "late"}, ts=moment)
    durable_kit.advance("2h")
    assert began["late"] == moment
    assert Run.objects.get().event.ts == moment


@pytest.mark.parametrize("kind", ["timedelta", "text", "seconds", "datetime"])
def test_run_after_delays_the_start(durable_kit: Kit, kind: str) -> None:
    look = durable.function(id="later")(lambda ctx: durable_kit.now())
    start = durable_kit.now()
    after = {
        "timedelta": HOUR, "text": "1h", "seconds": 3600, "datetime": start + HOUR
    }[kind]  # fmt: skip
    run = look.using(run_after=after).enqueue()
    assert run.due_at == start + HOUR
    durable_kit.advance("59m")
    run.refresh_from_db()
    assert (run.status, run.started_at) == ("queued", None)
    durable_kit.advance("1h")
    run.refresh_from_db()
    assert run.result() == start + HOUR
    assert run.started_at == start + HOUR


def test_moment_that_is_past_is_now(durable_kit: Kit) -> None:
    look = durable.function(id="later")(lambda ctx: durable_kit.now())
    run = look.using(run_after=durable_kit.now() - HOUR).enqueue()
    assert run.wait(timeout=10).result() == durable_kit.now()


@pytest.mark.parametrize(
    "wrong",
    [datetime(2026, 1, 1), "soon", -5, "400d", timedelta(days=367), True],  # noqa: DTZ001  # wrong on purpose
)
def test_wrong_delay_is_refused(durable_kit: Kit, wrong: object) -> None:
    look = durable.function(id="later")(lambda ctx: None)
    with pytest.raises(durable.ConfigurationError, match="run_after"):
        look.using(run_after=wrong)


@pytest.mark.parametrize(
    "wrong",
    [datetime(2026, 1, 1), "2026-01-01T00:00:00Z", 1767225600],  # noqa: DTZ001  # wrong on purpose
)
def test_ts_is_an_aware_datetime(durable_kit: Kit, wrong: object) -> None:
    with pytest.raises(durable.ConfigurationError, match="ts to be an aware datetime"):
        durable_kit.send("a/b", ts=wrong)
    assert not Event.objects.exists()


def test_oldest_run_goes_first(durable_kit: Kit) -> None:
    order: list[int] = []
    look = durable.function(id="look")(lambda ctx: order.append(ctx.event.data["n"]))
    for number in range(20):
        look.enqueue({"n": number})
    durable_kit.run_until_idle()
    assert order == list(range(20))


def test_priority_is_a_head_start_in_seconds(durable_kit: Kit) -> None:
    order: list[str] = []
    look = durable.function(id="look")(lambda ctx: order.append(ctx.event.data["n"]))
    look.enqueue({"n": "first"})
    durable_kit.advance("30s", run=False)
    look.using(priority=20).enqueue({"n": "20 s ahead, 30 s late"})
    look.using(priority=60).enqueue({"n": "60 s ahead, 30 s late"})
    durable_kit.run_until_idle()
    assert order == ["60 s ahead, 30 s late", "first", "20 s ahead, 30 s late"]


@pytest.mark.parametrize("wrong", [601, -601, 1.5, "60", True, None])
def test_wrong_priority_is_refused(durable_kit: Kit, wrong: int) -> None:
    look = durable.function(id="look")(lambda ctx: None)
    with pytest.raises(durable.ConfigurationError, match="a priority from -600 to 600"):
        look.using(priority=wrong)


def test_delayed_start_can_be_cancelled(durable_kit: Kit) -> None:
    look = durable.function(id="look")(lambda ctx: 1)
    run = look.using(run_after="1h").enqueue()
    assert run.cancel("changed my mind") is True
    durable_kit.advance("2h")
    run.refresh_from_db()
    assert (run.status, run.started_at) == ("cancelled", None)


def test_far_future_is_kept(durable_kit: Kit) -> None:
    moment = datetime(2100, 1, 1, tzinfo=UTC)
    durable.function(id="look", on=durable.Event("a/b"))(lambda ctx: 1)
    durable_kit.send("a/b", ts=moment)
    durable_kit.run_until_idle()
    assert Run.objects.get().due_at == moment
