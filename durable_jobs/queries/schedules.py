"""What became of the last times of a schedule, and which ones nothing came of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models.fields.json import KeyTransform

from durable_jobs import clock
from durable_jobs.definitions.cron import CronExpression, expression
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import Run, Schedule
from durable_jobs.queries import visibility
from durable_jobs.store import schedules as store

#: Times that are shown.
MARKS = 30
#: Newest runs of the function, among which those are looked for that came otherwise.
LOOKED_THROUGH = 100
#: No time is looked for that is longer ago than this.
LONGEST = timedelta(days=800)
_RESOLUTION = timedelta.resolution

_COLUMNS = ("status", "reason", "queued_at", "started_at", "ended_at", "event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A time of a schedule, and its run; None when there is none, or none any more.

    ``manual``: it was no time of the cron as it is now, but a person, or another cron.
    """

    at: datetime
    run: Run | None
    manual: bool = False


def history(schedule: Schedule) -> list[Mark]:
    """Return the last times of a schedule, the earliest first.

    Runs of its times have events with ids of their own, so an index finds them. A
    time without a run counts only after one that has its run.
    """
    slots = {store.event_id(schedule, slot): slot for slot in _slots(schedule)}
    rows = visibility.runs().only(*_COLUMNS)
    runs = {run.event_id: run for run in rows.filter(event_id__in=list(slots))}
    marks = [Mark(at=slot, run=runs.get(key)) for key, slot in slots.items()]
    marks += [
        Mark(at=run.queued_at, run=run, manual=True)
        for run in _others(schedule)
        if run.event_id not in slots
    ]
    marks.sort(key=lambda mark: mark.at)
    first = next((n for n, mark in enumerate(marks) if mark.run), len(marks))
    return marks[first:][-MARKS:]


def _others(schedule: Schedule) -> list[Run]:
    """Return runs of a schedule among the newest of its function."""
    rows = visibility.runs().filter(function=schedule.function)
    newest = rows.only(*_COLUMNS).annotate(of=KeyTransform("schedule", "event_meta"))
    found: Any = newest.order_by("-pk")[:LOOKED_THROUGH]
    return [run for run in found if run.of == schedule.pk]


def _slots(schedule: Schedule) -> list[datetime]:
    try:
        cron = expression(schedule.cron, schedule.tz)
        return list(_backwards(cron, clock.now(), schedule.created_at))
    except (ConfigurationError, OverflowError):
        return []


def _backwards(
    cron: CronExpression, now: datetime, since: datetime | None
) -> Iterator[datetime]:
    """Give the last times of a cron until now, the latest first."""
    upcoming = cron.next_after(now)
    before, gap = now + _RESOLUTION, cron.next_after(upcoming) - upcoming
    for _number in range(MARKS):
        slot = _latest(cron, before, gap)
        if slot is None or (since is not None and slot < since):
            return
        yield slot.astimezone(UTC)
        gap, before = max(before - slot, _RESOLUTION), slot


def _latest(cron: CronExpression, before: datetime, gap: timedelta) -> datetime | None:
    """Return the last time before a moment, looking a gap back, and then farther."""
    while gap <= LONGEST:
        first = cron.next_after(before - gap)
        if first < before:
            return cron.latest(first, before - _RESOLUTION)
        gap *= 4
    return None
