"""Ticks at random moments, against a model that knows each occurrence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durable_jobs.definitions.cron import expression
from durable_jobs.models import Schedule
from durable_jobs.schedules import occurrences

START = datetime(2026, 3, 27, 11, 59, tzinfo=UTC)
GAPS = st.lists(
    st.one_of(
        st.timedeltas(timedelta(milliseconds=1), timedelta(minutes=3)),
        st.timedeltas(timedelta(minutes=3), timedelta(days=3)),
        # A clock that goes back.
        st.timedeltas(timedelta(hours=-2), timedelta()),
    ),
    min_size=1,
    max_size=8,
)
CRONS = st.sampled_from(["*/10 * * * *", "@hourly", "30 2 * * *", "0 9,17 * * 1-5"])
ZONES = st.sampled_from(["UTC", "Europe/Paris", "Australia/Lord_Howe"])
JITTERS = st.sampled_from([None, timedelta(seconds=1), timedelta(minutes=45)])


def made(**values: Any) -> Schedule:
    cron = expression(values["cron"], values["tz"])
    schedule = Schedule(pk=7, next_occurrence=cron.next_after(START), **values)
    schedule.due_at = schedule.next_occurrence
    return schedule


def all_slots(schedule: Schedule, until: datetime) -> list[datetime]:
    """Return each occurrence that is due by a moment."""
    cron, slot, found = expression(schedule.cron, schedule.tz), START, []
    while occurrences.due_at(schedule, slot := cron.next_after(slot)) <= until:
        found.append(slot)
    return found


@given(CRONS, ZONES, JITTERS, st.sampled_from(["skip", "one", "all"]), GAPS)
def test_ticks_fire_what_catch_up_says_and_no_occurrence_twice(
    cron: str,
    tz: str,
    jitter: timedelta | None,
    catch_up: str,
    gaps: list[timedelta],
) -> None:
    schedule = made(cron=cron, tz=tz, jitter=jitter, catch_up=catch_up)
    now, latest, fired = START, START, []
    for gap in gaps:
        now += gap
        before = set(all_slots(schedule, latest))
        latest = max(latest, now)
        new = [slot for slot in all_slots(schedule, now) if slot not in before]
        found: list[datetime] = []
        while schedule.due_at and schedule.due_at <= now:
            found += [
                one.time
                for one in occurrences.advance(schedule, now, False).occurrences
            ]
        late = now - occurrences.due_at(schedule, new[-1]) if new else timedelta()
        if catch_up == "all":
            assert found == new
        elif catch_up == "one" or (new and late <= timedelta(seconds=10)):
            assert found == new[-1:]
        else:
            assert found in ([], new[-1:])
            assert not found or late <= timedelta(seconds=60)
        fired += found
    assert fired == sorted(set(fired))


@given(
    st.sampled_from(["skip", "queue"]),
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=30),
)
def test_runs_that_may_not_overlap_never_do_and_each_slot_is_accounted_for(
    overlap: str, looks: list[tuple[int, bool]]
) -> None:
    """``busy`` is the model's state: a run lasts until a later tick says otherwise."""
    schedule = made(cron="* * * * *", tz="UTC", catch_up="all", overlap=overlap)
    now, running, started, skipped = START, False, [], []
    for minutes, ends in looks:
        now += timedelta(minutes=minutes)
        running = running and not ends
        found = occurrences.advance(schedule, now, running)
        begun = [one.time for one in found.occurrences if not one.skip_reason]
        assert len(begun) <= (0 if running else 1)
        running = running or bool(begun)
        started += begun
        skipped += [one.time for one in found.occurrences if one.skip_reason]
    held = [datetime.fromisoformat(text) for text in schedule.queued_occurrences]
    assert sorted([*started, *skipped, *held]) == all_slots(schedule, now)
    assert started == sorted(started)
    assert not (held if overlap == "skip" else skipped[occurrences.MAX_QUEUED :])
