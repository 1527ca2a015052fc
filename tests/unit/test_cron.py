"""Cron expressions, especially when the clocks change."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.definitions.cron import CronExpression
from durable_jobs.exceptions import ConfigurationError

ZONES = ["UTC", "Europe/Paris", "America/New_York", "Australia/Lord_Howe"]
#: Zones with odd changes: at midnight, by half an hour, against the season, often.
ODD_ZONES = [
    "Africa/Cairo", "Africa/Casablanca", "America/Asuncion", "America/Havana",
    "America/Santiago", "America/St_Johns", "Antarctica/Troll", "Asia/Beirut",
    "Asia/Gaza", "Asia/Kathmandu", "Atlantic/Azores", "Australia/Lord_Howe",
    "Europe/Chisinau", "Europe/Dublin", "Pacific/Chatham", "Pacific/Easter",
]  # fmt: skip


def times(text: str, zone: str, start: str, count: int) -> list[str]:
    """Return the first times after a local start, as day, local time and offset."""
    cron = CronExpression(text, zone)
    moment = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
    found = []
    for _ in range(count):
        moment = cron.next_after(moment)
        assert moment.tzinfo is UTC
        found.append(moment.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %z"))
    return found


def test_cron_has_five_fields() -> None:
    assert times("0 9 * * 1-5", "Europe/Paris", "2025-06-06T08:00", 3) == [
        "06 09:00 +0200", "09 09:00 +0200", "10 09:00 +0200"
    ]  # fmt: skip
    assert times("5,10 0 1 JAN,jul *", "UTC", "2025-06-06", 3) == [
        "01 00:05 +0000", "01 00:10 +0000", "01 00:05 +0000"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("@yearly", "0 0 1 1 *"), ("@annually", "0 0 1 1 *"), ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"), ("@daily", "0 0 * * *"), ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"), ("@Hourly", "0 * * * *"), ("* * * * 7", "* * * * 0"),
    ],
)  # fmt: skip
def test_names_replace_fields(name: str, fields: str) -> None:
    start = "2025-06-06T08:01"
    assert times(name, "UTC", start, 3) == times(fields, "UTC", start, 3)


def test_day_of_month_and_day_of_week_both_given_mean_either() -> None:
    assert times("0 0 13 * FRI", "UTC", "2025-03-01", 4) == [
        "07 00:00 +0000", "13 00:00 +0000", "14 00:00 +0000", "21 00:00 +0000"
    ]  # fmt: skip
    # A range with a step counts as given; only a plain star does not.
    assert times("0 0 */10 * MON", "UTC", "2025-03-01T01:00", 4) == [
        "03 00:00 +0000", "10 00:00 +0000", "11 00:00 +0000", "17 00:00 +0000"
    ]  # fmt: skip
    assert times("0 0 */1 * MON", "UTC", "2025-03-01", 2) == [
        "03 00:00 +0000", "10 00:00 +0000"
    ]  # fmt: skip


def test_skipped_time_fires_once_at_the_end_of_the_gap() -> None:
    after_three = ["30 03:00 +0200", "31 02:30 +0200"]
    assert times("30 2 * * *", "Europe/Paris", "2025-03-29T12:00", 2) == after_three
    assert times("0,30 2 * * *", "Europe/Paris", "2025-03-29T12:00", 3) == [
        "30 03:00 +0200", "31 02:00 +0200", "31 02:30 +0200"
    ]  # fmt: skip
    assert times("*/15 2,3 * * *", "Europe/Paris", "2025-03-30T01:00", 3) == [
        "30 03:00 +0200", "30 03:15 +0200", "30 03:30 +0200"
    ]  # fmt: skip
    assert times("0 */2 * * *", "America/New_York", "2025-03-09T00:00", 2) == [
        "09 03:00 -0400", "09 04:00 -0400"
    ]  # fmt: skip


def test_gaps_of_half_an_hour_at_midnight_and_of_a_day_are_handled() -> None:
    assert times("15 2 * * *", "Australia/Lord_Howe", "2025-10-04T12:00", 2) == [
        "05 02:30 +1100", "06 02:15 +1100"
    ]  # fmt: skip
    assert times("0 0 * * *", "Africa/Cairo", "2025-04-24T12:00", 2) == [
        "25 01:00 +0300", "26 00:00 +0300"
    ]  # fmt: skip
    assert times("0 12 * * *", "Pacific/Apia", "2011-12-29T13:00", 2) == [
        "31 00:00 +1400", "31 12:00 +1400"
    ]  # fmt: skip


def test_repeated_time_fires_once_the_first_time() -> None:
    assert times("30 2 * * *", "Europe/Paris", "2025-10-25T12:00", 2) == [
        "26 02:30 +0200", "27 02:30 +0100"
    ]  # fmt: skip
    assert times("*/30 2 * * *", "Europe/Paris", "2025-10-25T12:00", 3) == [
        "26 02:00 +0200", "26 02:30 +0200", "27 02:00 +0100"
    ]  # fmt: skip
    second = datetime(2025, 10, 26, 2, 10, tzinfo=ZoneInfo("Europe/Paris"), fold=1)
    found = CronExpression("30 2 * * *", "Europe/Paris").next_after(second)
    assert found == datetime(2025, 10, 27, 1, 30, tzinfo=UTC)


def test_intervals_go_by_elapsed_time() -> None:
    assert times("*/15 * * * *", "Europe/Paris", "2025-03-30T01:40", 2) == [
        "30 01:45 +0100", "30 03:00 +0200"
    ]  # fmt: skip
    found = times("*/30 * * * *", "Europe/Paris", "2025-10-26T01:40", 5)
    assert found == [
        "26 02:00 +0200", "26 02:30 +0200", "26 02:00 +0100", "26 02:30 +0100",
        "26 03:00 +0100",
    ]  # fmt: skip
    assert times("0 0-23 * * *", "Europe/Paris", "2025-10-26T01:40", 3) == [
        "26 02:00 +0200", "26 02:00 +0100", "26 03:00 +0100"
    ]  # fmt: skip


MOMENTS = st.sampled_from(
    [datetime(2025, month, day) for month in (3, 4, 10, 11) for day in (1, 9, 26, 30)]  # noqa: DTZ001 - UTC is added below
    + [datetime(2025, 10, 5), datetime(2025, 11, 2), datetime(2025, 4, 6)]  # noqa: DTZ001
).flatmap(
    lambda day: st.timedeltas(timedelta(days=-1), timedelta(days=2)).map(
        lambda offset: (day + offset).replace(tzinfo=UTC)
    )
)
DELAYS = st.timedeltas(timedelta(0), timedelta(1))
FIELDS = st.tuples(
    st.sampled_from(["0", "30", "15,45", "*/20", "59"]),
    st.sampled_from(["*", "0", "1", "2", "3", "*/2", "1-3", "23"]),
    st.sampled_from(["*", "*", "1", "*/2", "L"]),
    st.just("*"),
    st.sampled_from(["*", "*", "SUN", "1-5", "*/3"]),
).map(" ".join)


def is_due(cron: CronExpression, moment: datetime) -> bool:
    """Return whether a moment is due, by checking each minute of a day.

    This is independent of the implementation. It checks the wall times that the moment
    shows or, at the end of a gap, replaces.
    """
    zone = ZoneInfo(cron.tz)
    local = moment.astimezone(zone)
    before = (moment - timedelta(minutes=1)).astimezone(zone)
    walls = [local.replace(tzinfo=None)]
    missing = local.replace(tzinfo=None) - before.replace(tzinfo=None)
    if not cron.is_interval:
        if local.fold:
            return False
        walls += [
            local.replace(tzinfo=None) - timedelta(minutes=back)
            for back in range(1, int(missing.total_seconds()) // 60)
        ]
    return any(matches(cron.text, wall) for wall in walls)


def matches(text: str, wall: datetime) -> bool:
    minute, hour, day, _, weekday = text.split()
    last = (wall + timedelta(days=1)).month != wall.month
    in_month = (day == "L" and last) or (day != "L" and holds(day, wall.day, 1))
    names = weekday.replace("SUN", "0")
    in_week = holds(names, wall.isoweekday() % 7, 0)
    either = day != "*" and weekday != "*"
    return (
        holds(minute, wall.minute, 0)
        and holds(hour, wall.hour, 0)
        and (in_month or in_week if either else in_month and in_week)
    )


def holds(part: str, value: int, first: int) -> bool:
    if part.startswith("*"):
        return (value - first) % int(part[2:] or 1) == 0
    low, _, high = part.partition("-")
    if high:
        return int(low) <= value <= int(high)
    return value in map(int, part.split(","))


@given(FIELDS, st.sampled_from(ZONES), MOMENTS)
def test_next_is_the_first_due_time(text: str, zone: str, start: datetime) -> None:
    cron = CronExpression(text, zone)
    found = cron.next_after(start)
    assert found > start
    assert cron.next_after(found) > found
    assert is_due(cron, found)
    minute = start.replace(second=0, microsecond=0) + timedelta(minutes=1)
    until = min(found, minute + timedelta(hours=30))
    while minute < until:
        assert not is_due(cron, minute), minute
        minute += timedelta(minutes=1)


@functools.cache
def changes(zone: str) -> list[datetime]:
    """Return when the clocks of a zone change from 2015 to 2035, to the hour."""
    at, found = datetime(2015, 1, 1, tzinfo=UTC), []
    while at.year < 2035:
        later = at + timedelta(hours=1)
        if at.astimezone(ZoneInfo(zone)).utcoffset() != (
            later.astimezone(ZoneInfo(zone)).utcoffset()
        ):
            found.append(at)
        at = later
    return found or [datetime(2025, 3, 30, tzinfo=UTC)]


NEAR_CHANGES = st.sampled_from(ODD_ZONES).flatmap(
    lambda zone: st.tuples(
        st.just(zone),
        st.sampled_from(changes(zone)),
        st.timedeltas(timedelta(hours=-30), timedelta(hours=6)),
    )
)


@given(FIELDS, NEAR_CHANGES)
def test_minutes_around_odd_changes_are_due_by_the_rule(
    text: str, near: tuple[str, datetime, timedelta]
) -> None:
    """All the times of a day and a half around a change, and no other minute."""
    zone, change, before = near
    cron = CronExpression(text, zone)
    moment = (change + before).replace(second=0, microsecond=0)
    until = moment + timedelta(hours=36)
    expected, minute = [], moment
    while (minute := minute + timedelta(minutes=1)) <= until:
        if is_due(cron, minute):
            expected.append(minute)
    found = []
    while (moment := cron.next_after(moment)) <= until:
        found.append(moment)
    assert found == expected


def test_day_that_a_zone_left_out_fires_once_at_its_end() -> None:
    """Samoa had no 30 December 2011: it moved to the other side of the date line."""
    assert times("0 9,15 30 * *", "Pacific/Apia", "2011-12-29T12:00", 2) == [
        "31 00:00 +1400", "30 09:00 +1400"
    ]  # fmt: skip


@given(
    FIELDS, st.sampled_from(ZONES), MOMENTS, st.timedeltas(timedelta(0), timedelta(3))
)
def test_latest_time_up_to_a_moment_is_found_by_halving(
    text: str, zone: str, start: datetime, length: timedelta
) -> None:
    cron = CronExpression(text, zone)
    first = cron.next_after(start)
    moment = first + length
    expected = first
    while (upcoming := cron.next_after(expected)) <= moment:
        expected = upcoming
    assert cron.latest(first, moment) == expected


def test_latest_of_a_year_of_minutes_is_found_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cron, looks = CronExpression("* * * * *"), []
    plain = CronExpression.next_after

    def counting(self: CronExpression, moment: datetime) -> datetime:
        looks.append(moment)
        return plain(self, moment)

    monkeypatch.setattr(CronExpression, "next_after", counting)
    first = datetime(2025, 1, 1, tzinfo=UTC)
    last = datetime(2025, 12, 31, 23, 59, tzinfo=UTC)
    assert cron.latest(first, last + timedelta(seconds=59)) == last
    assert len(looks) < 100


@given(
    FIELDS, st.sampled_from(ZONES), MOMENTS, st.timedeltas(timedelta(0), timedelta(1))
)
def test_later_start_never_returns_an_earlier_time(
    text: str, zone: str, start: datetime, more: timedelta
) -> None:
    cron = CronExpression(text, zone)
    first, later = cron.next_after(start), cron.next_after(start + more)
    assert first <= later
    assert later == first or first <= start + more


@pytest.mark.parametrize(
    "text",
    ["", "@", "@reboot", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *",
     "* * 0 * *", "* * * 13 *", "* * * * 8", "a b c d e", "*/0 * * * *", "5-1 * * * *",
     "0 0 30 2 *", "0 0 31 4,6 *", "٣ * * * *", "* * * * MON#6",
     "1," * 200 + "1 * * * *",
     None, 5, b"* * * * *"],
)  # fmt: skip
def test_invalid_cron_is_refused(text: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^The cron is .*expected five"):
        CronExpression(text)


@given(st.lists(st.text("0123456789*/-,LW#MONa", max_size=6), min_size=5, max_size=5))
def test_any_five_fields_are_parsed_or_refused(parts: list[str]) -> None:
    try:
        cron = CronExpression(" ".join(parts))
    except ConfigurationError:
        return
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    assert cron.next_after(moment) > moment
    assert cron.describe()


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../UTC", "Europe", None, "\0"])
def test_unknown_zone_is_refused(zone: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^The time zone is .*expected"):
        CronExpression("@hourly", zone)


def test_naive_moment_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected an aware"):
        CronExpression("@hourly").next_after(datetime(2025, 1, 1))  # noqa: DTZ001


def test_description_is_plain_english() -> None:
    words = CronExpression("0 9 * * 1-5", "Europe/Paris").describe()
    assert words == "At 09:00 on Monday through Friday (Europe/Paris)"


def test_same_text_and_zone_are_equal() -> None:
    assert CronExpression("@hourly") == CronExpression("@hourly", "UTC")
    assert CronExpression("@hourly") != CronExpression("@hourly", "Europe/Paris")


def test_change_by_half_an_hour_repeats_half_an_hour() -> None:
    cron = CronExpression("30 * * * *", "Australia/Lord_Howe")
    moment, found = datetime(2015, 4, 4, 14, tzinfo=UTC), []
    while len(found) < 4:
        moment = cron.next_after(moment)
        found.append(f"{moment:%H:%M}")
    assert found == ["14:30", "15:00", "16:00", "17:00"]
