"""Crons where the clocks change: the EU's spring and autumn of 2026.

On 29 March 02:00 becomes 03:00 in Paris, on 25 October 03:00 becomes 02:00.
"""

from __future__ import annotations

from datetime import UTC, datetime

from durable_jobs.testing import Kit
from tests.schedules.conftest import Every, Slots

SPRING = datetime(2026, 3, 28, 12, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 24, 12, tzinfo=UTC)


def told(slots: Slots) -> list[str]:
    """Return the times as day, hour and minute in UTC."""
    return [f"{slot.astimezone(UTC):%d %H:%M}" for slot in slots()]


def test_time_that_is_skipped_fires_at_the_end_of_the_gap(
    kit: Kit, every: Every, slots: Slots
) -> None:
    kit.travel_to(SPRING)
    every("30 2 * * *", tz="Europe/Paris")
    kit.advance("2d")
    # 03:00 in Paris is 01:00 in UTC on that day; then 02:30 is 00:30.
    assert told(slots) == ["29 01:00", "30 00:30"]


def test_occurrences_skipped_in_a_gap_fire_once(
    kit: Kit, every: Every, slots: Slots
) -> None:
    kit.travel_to(SPRING)
    every("*/15 2 * * *", tz="Europe/Paris")
    kit.advance("1d")
    assert told(slots) == ["29 01:00"]


def test_time_that_occurs_twice_fires_the_first_time(
    kit: Kit, every: Every, slots: Slots
) -> None:
    kit.travel_to(AUTUMN)
    every("30 2 * * *", tz="Europe/Paris")
    kit.advance("2d")
    assert told(slots) == ["25 00:30", "26 01:30"]


def test_intervals_go_by_elapsed_time(kit: Kit, every: Every, slots: Slots) -> None:
    kit.travel_to(SPRING.replace(hour=23, minute=59))
    every("*/30 * * * *", tz="Europe/Paris")
    kit.advance("3h")
    assert told(slots) == [
        "29 00:00", "29 00:30", "29 01:00", "29 01:30", "29 02:00", "29 02:30"
    ]  # fmt: skip


def test_intervals_fire_in_both_of_a_repeated_hour(
    kit: Kit, every: Every, slots: Slots
) -> None:
    kit.travel_to(AUTUMN.replace(hour=23, minute=59))
    every("0 * * * *", tz="Europe/Paris")
    kit.advance("4h")
    assert told(slots) == ["25 00:00", "25 01:00", "25 02:00", "25 03:00"]


def test_time_of_the_day_stays_the_time_of_the_day(
    kit: Kit, every: Every, slots: Slots
) -> None:
    kit.travel_to(SPRING)
    every("0 9 * * *", tz="Europe/Paris")
    kit.advance("2d")
    assert told(slots) == ["29 07:00", "30 07:00"]
