"""Occurrences that became due while no tick ran."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from durable_jobs.models import Run, Schedule
from durable_jobs.testing import Kit
from tests.schedules.conftest import Every, Slots

HOUR = timedelta(hours=1)
NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("skip", []), ("one", [3]), ("all", [1, 2, 3])],
)
def test_catch_up_decides(
    kit: Kit,
    every: Every,
    slots: Slots,
    catch_up: Literal["skip", "one", "all"],
    expected: list[int],
) -> None:
    every("0 * * * *", catch_up=catch_up)
    kit.run_until_idle()
    kit.advance("3h30m", run=False)
    kit.run_until_idle()
    assert slots() == [NOON + hours * HOUR for hours in expected]
    for run in Run.objects.all():
        assert run.data["fired_at"] == kit.now()
    # From here on it continues as before.
    kit.advance("1h")
    assert slots()[-1] == NOON + 4 * HOUR
    assert len(slots()) == len(expected) + 1


def test_skip_is_the_default(kit: Kit, every: Every, slots: Slots) -> None:
    every("0 * * * *")
    kit.run_until_idle()
    kit.advance("3h30m", run=False)
    kit.run_until_idle()
    assert slots() == []


def test_slightly_late_tick_is_no_outage(kit: Kit, every: Every, slots: Slots) -> None:
    every("0 * * * *")
    kit.run_until_idle()
    kit.advance(HOUR + timedelta(seconds=5), run=False)
    kit.run_until_idle()
    assert slots() == [NOON + HOUR]


def test_long_outage_is_caught_up_in_bounded_batches(
    kit: Kit, every: Every, slots: Slots
) -> None:
    every("* * * * *", catch_up="all")
    kit.run_until_idle()
    kit.advance("5h", run=False)
    kit.run_until_idle()
    found = slots()
    assert len(found) == len(set(found)) == 300
    assert found[0] == NOON + timedelta(minutes=1)
    assert found[-1] == NOON + timedelta(hours=5)
    assert Schedule.objects.get().due_at == NOON + timedelta(hours=5, minutes=1)


def test_waits_end_after_an_outage_too(kit: Kit) -> None:
    from durable_jobs import durable

    @durable.function(id="wait")
    def wait(ctx):
        ctx.step.sleep("nap", "1h")
        event = ctx.step.wait_for_event("go", "a/go", timeout="1h")
        return [event, kit.now()]

    run = wait.enqueue()
    kit.run_until_idle()
    kit.advance("1d", run=False)
    kit.advance("1h")
    run.refresh_from_db()
    # The second wait began when the first was over, which was after the outage.
    assert run.result() == [None, NOON + timedelta(days=1, hours=1)]
