"""Compute which occurrences of a schedule are due, and when to check it next.

An occurrence is a time of the cron. It is due at that time plus its jitter. The jitter
depends on the schedule and the time alone, and is shorter than the gap to the next
occurrence, so occurrences keep their order. This module writes nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from durable_jobs.conf import settings
from durable_jobs.definitions.cron import expression
from durable_jobs.models import Schedule

#: Missed occurrences of one schedule that one check fires; the next check continues.
MAX_CATCH_UP = 100
#: Occurrences that wait for an earlier run (``overlap="queue"``); more are skipped.
MAX_QUEUED = 100
#: The end of a run makes its schedule due. These intervals cover a lost update.
MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL = timedelta(minutes=1), timedelta(hours=1)

STILL_RUNNING = "An earlier run of the schedule had not ended (overlap='skip')."
QUEUE_FULL = f"{MAX_QUEUED} earlier occurrences were queued (overlap='queue')."


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A time that gets a run; ``skip_reason`` is why the run does not start."""

    time: datetime
    skip_reason: str = ""


@dataclass(slots=True)
class ScheduleUpdate:
    """The result of a check: occurrences that get a run now, and times that wait."""

    occurrences: list[Occurrence] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)


def due_at(schedule: Schedule, time: datetime) -> datetime:
    """Return when an occurrence fires: ``time`` plus its jitter."""
    if not schedule.jitter:
        return time
    upcoming = expression(schedule.cron, schedule.tz).next_after(time)
    window = min(schedule.jitter, upcoming - time)
    seed = f"{schedule.pk}:{time.isoformat()}".encode()
    number = int.from_bytes(hashlib.sha256(seed).digest()[:8])
    return time + number % (window // timedelta.resolution) * timedelta.resolution


def advance(schedule: Schedule, now: datetime, busy: bool) -> ScheduleUpdate:
    """Advance a schedule past its due occurrences; return what they start.

    ``busy``: the run that it started last has not ended. Changes
    ``next_occurrence``, ``due_at`` and ``queued_occurrences``.
    """
    due: list[datetime] = []
    if due_at(schedule, schedule.next_occurrence) <= now:
        due, schedule.next_occurrence = _catch_up(schedule, now)
    queued = [datetime.fromisoformat(text) for text in schedule.queued_occurrences]
    update = _apply_overlap(schedule.overlap, queued, due, busy)
    schedule.queued_occurrences = update.queued
    schedule.due_at = next_check(schedule, now)
    return update


def next_check(schedule: Schedule, now: datetime) -> datetime:
    """Return when the schedule has to be checked again."""
    due = due_at(schedule, schedule.next_occurrence)
    if not schedule.queued_occurrences:
        return due
    since = now - datetime.fromisoformat(schedule.queued_occurrences[0])
    interval = min(max(since, MIN_CHECK_INTERVAL), MAX_CHECK_INTERVAL)
    return min(due, now + interval)


def _catch_up(schedule: Schedule, now: datetime) -> tuple[list[datetime], datetime]:
    """Return the times to fire now, by ``catch_up``, and the next occurrence."""
    cron, first = expression(schedule.cron, schedule.tz), schedule.next_occurrence
    if schedule.catch_up == "all":
        passed, upcoming = [first], cron.next_after(first)
        while due_at(schedule, upcoming) <= now and len(passed) < MAX_CATCH_UP:
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
    schedule: Schedule, time: datetime, upcoming: datetime, now: datetime
) -> bool:
    """Return whether an occurrence is only a little late, and not missed."""
    grace = max(
        10 * settings.TICK_INTERVAL, min(settings.LEASE_DURATION, (upcoming - time) / 2)
    )
    return now - due_at(schedule, time) <= grace


def _apply_overlap(
    overlap: str, queued: list[datetime], due: list[datetime], busy: bool
) -> ScheduleUpdate:
    """Decide by ``overlap`` which times start a run, which wait, which are skipped.

    Times that are queued stay in order even if ``overlap`` has changed since.
    """
    if overlap == "allow":
        return ScheduleUpdate([Occurrence(time) for time in [*queued, *due]])
    times = [*queued, *due]
    found = [] if busy else [Occurrence(time) for time in times[:1]]
    rest = times[len(found) :]
    kept = rest[:MAX_QUEUED] if overlap == "queue" else []
    reason = QUEUE_FULL if overlap == "queue" else STILL_RUNNING
    found += [Occurrence(time, reason) for time in rest[len(kept) :]]
    return ScheduleUpdate(found, [time.isoformat() for time in kept])
