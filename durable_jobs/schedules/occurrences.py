"""Which times of a schedule are due, and when to look again. Nothing is written here.

A *slot* is a time by the cron. It is due at that time plus its jitter, which is the
same whoever asks, and never reaches the slot after it: so slots stay in their order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from durable_jobs.conf import settings
from durable_jobs.definitions.cron import expression
from durable_jobs.models import Schedule

#: How many missed slots of one schedule one look fires; the next look goes on.
MOST_AT_ONCE = 100
#: How many slots wait for the run before them (``overlap="queue"``); more are skipped.
MOST_HELD = 100
#: The end of a run wakes the slot behind it; this is for when that word was lost.
FIRST_LOOK, LAST_LOOK = timedelta(minutes=1), timedelta(hours=1)

GOING_ON = "An earlier run of its schedule was going on (overlap='skip')."
FULL = f"{MOST_HELD} earlier times of its schedule were waiting (overlap='queue')."


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A slot that gets its run: one that starts, or one that is skipped and why."""

    slot: datetime
    skipped: str = ""


@dataclass(slots=True)
class ScheduleUpdate:
    """What came of looking at a schedule: the runs it gets, and its new state."""

    fires: list[Occurrence] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


def due_at(schedule: Schedule, slot: datetime) -> datetime:
    """Return when a slot is to be fired: at its time, or within its jitter."""
    if not schedule.jitter:
        return slot
    upcoming = expression(schedule.cron, schedule.tz).next_after(slot)
    window = min(schedule.jitter, upcoming - slot)
    seed = f"{schedule.pk}:{slot.isoformat()}".encode()
    number = int.from_bytes(hashlib.sha256(seed).digest()[:8])
    return slot + number % (window // timedelta.resolution) * timedelta.resolution


def look(schedule: Schedule, now: datetime, busy: bool) -> ScheduleUpdate:
    """Move a schedule past the slots that are due, and tell what they start.

    ``busy``: the run that it started last has not ended. Changes ``slot_at``,
    ``next_at`` and ``held``.
    """
    due: list[datetime] = []
    if due_at(schedule, schedule.next_occurrence) <= now:
        due, schedule.next_occurrence = _passed(schedule, now)
    waiting = [datetime.fromisoformat(text) for text in schedule.queued_occurrences]
    found = _overlapping(schedule.overlap, waiting, due, busy)
    schedule.queued_occurrences = found.held
    schedule.due_at = next_look(schedule, now)
    return found


def next_look(schedule: Schedule, now: datetime) -> datetime:
    """Return when somebody has to look at the schedule again."""
    due = due_at(schedule, schedule.next_occurrence)
    if not schedule.queued_occurrences:
        return due
    since = now - datetime.fromisoformat(schedule.queued_occurrences[0])
    return min(due, now + min(max(since, FIRST_LOOK), LAST_LOOK))


def _passed(schedule: Schedule, now: datetime) -> tuple[list[datetime], datetime]:
    """Return the slots to fire now, by ``catch_up``, and the one after them."""
    cron, first = expression(schedule.cron, schedule.tz), schedule.next_occurrence
    if schedule.catch_up == "all":
        passed, upcoming = [first], cron.next_after(first)
        while due_at(schedule, upcoming) <= now and len(passed) < MOST_AT_ONCE:
            passed.append(upcoming)
            upcoming = cron.next_after(upcoming)
        return passed, upcoming
    last = cron.latest(first, now)
    if last > first and due_at(schedule, last) > now:
        last = cron.latest(first, last - timedelta(microseconds=1))
    upcoming = cron.next_after(last)
    missed = schedule.catch_up == "skip" and not _on_time(schedule, last, upcoming, now)
    return [] if missed else [last], upcoming


def _on_time(
    schedule: Schedule, slot: datetime, upcoming: datetime, now: datetime
) -> bool:
    """Tell whether a slot is merely a little late, and did not pass in an outage."""
    grace = max(
        10 * settings.TICK_INTERVAL, min(settings.LEASE_DURATION, (upcoming - slot) / 2)
    )
    return now - due_at(schedule, slot) <= grace


def _overlapping(
    overlap: str, waiting: list[datetime], due: list[datetime], busy: bool
) -> ScheduleUpdate:
    """Decide by ``overlap`` which slots start a run, which wait and which are skipped.

    Slots that wait do so until their turn, also when the option has changed meanwhile.
    """
    if overlap == "allow":
        return ScheduleUpdate([Occurrence(slot) for slot in [*waiting, *due]])
    slots = [*waiting, *due]
    fires = [] if busy else [Occurrence(slot) for slot in slots[:1]]
    rest = slots[len(fires) :]
    kept = rest[:MOST_HELD] if overlap == "queue" else []
    reason = FULL if overlap == "queue" else GOING_ON
    fires += [Occurrence(slot, reason) for slot in rest[len(kept) :]]
    return ScheduleUpdate(fires, [slot.isoformat() for slot in kept])
