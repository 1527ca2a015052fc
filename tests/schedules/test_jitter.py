"""Jitter spreads simultaneous starts, deterministically."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from durable_jobs import durable
from durable_jobs.definitions.cron import expression
from durable_jobs.models import Run, Schedule
from durable_jobs.schedules import occurrences
from durable_jobs.testing import Kit

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def test_starts_are_spread_and_keep_their_scheduled_time(kit: Kit) -> None:
    report = durable.function(id="report")(lambda ctx: None)
    for _ in range(20):
        durable.schedules.create(report, "0 * * * *", jitter="10m")
    kit.advance("1h")
    assert Run.objects.count() < 3
    kit.advance("10m")
    runs = list(Run.objects.all())
    assert {run.data["scheduled_at"] for run in runs} == {NOON + timedelta(hours=1)}
    late = [run.data["fired_at"] - run.data["scheduled_at"] for run in runs]
    assert len(set(late)) == len(late) == 20
    assert timedelta() <= min(late)
    assert max(late) < timedelta(minutes=10)


def test_declared_crons_have_jitter_too(kit: Kit) -> None:
    durable.function(id="clock", on=durable.Cron("0 * * * *", jitter="30m"))(
        lambda ctx: None
    )
    kit.advance("1h")
    assert not Run.objects.exists()
    kit.advance("5h")
    runs = Run.objects.order_by("pk")
    assert [run.data["scheduled_at"].hour for run in runs][:5] == [13, 14, 15, 16, 17]


def test_occurrence_within_its_jitter_is_not_missed(kit: Kit) -> None:
    """A late tick before the occurrence's own time fires nothing and loses nothing."""
    durable.function(
        id="clock", on=durable.Cron("0 * * * *", jitter="1h", catch_up="one")
    )(lambda ctx: None)
    kit.run_until_idle()
    schedule = Schedule.objects.get()
    five = NOON + timedelta(hours=5)
    due = occurrences.due_at(schedule, five)
    kit.travel_to(due - timedelta(seconds=1), run=False)
    kit.run_until_idle()
    assert Run.objects.get().data["scheduled_at"] == NOON + timedelta(hours=4)
    kit.advance("1s")
    assert Run.objects.count() == 2


@given(
    st.sampled_from(["* * * * *", "*/7 * * * *", "0 9 * * 1-5", "59 23 31 12 *"]),
    st.timedeltas(timedelta(microseconds=1), timedelta(days=1)),
    st.integers(1, 2**60),
    st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - UTC is added below
)
def test_occurrence_never_reaches_the_next_one(
    cron: str, jitter: timedelta, pk: int, start: datetime
) -> None:
    schedule = Schedule(pk=pk, cron=cron, tz="UTC", jitter=jitter)
    slot = expression(cron, "UTC").next_after(start.replace(tzinfo=UTC))
    upcoming = expression(cron, "UTC").next_after(slot)
    due = occurrences.due_at(schedule, slot)
    assert slot <= due < upcoming
    assert due - slot < jitter
    assert occurrences.due_at(schedule, slot) == due
