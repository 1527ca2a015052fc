"""Schedules for programs, and the past occurrences of a schedule with their runs."""

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
from durable_jobs.store import db
from durable_jobs.store import schedules as store

#: Past occurrences that are shown.
MAX_OCCURRENCES = 30
#: Newest runs of the function that are searched for manual runs of the schedule.
MAX_SEARCHED = 100
#: How far back the search for past occurrences goes.
MAX_AGE = timedelta(days=800)
_RESOLUTION = timedelta.resolution

_COLUMNS = ("status", "reason", "queued_at", "started_at", "ended_at", "event")


@dataclass(frozen=True, slots=True, kw_only=True)
class PastOccurrence:
    """A past occurrence of a schedule and its run.

    ``run`` is None if no run was started or if the run was deleted. ``manual``: the run
    was started by a person, or by an earlier cron expression.
    """

    at: datetime
    run: Run | None
    manual: bool = False


def history(schedule: Schedule) -> list[PastOccurrence]:
    """Return the past occurrences of a schedule, earliest first.

    The event id of a run is derived from its occurrence, so an index finds the runs.
    Occurrences before the first run are left out.
    """
    by_event = {store.event_id(schedule, at): at for at in _occurrences(schedule)}
    rows = visibility.runs().only(*_COLUMNS)
    runs = {run.event_id: run for run in rows.filter(event_id__in=list(by_event))}
    found = [PastOccurrence(at=at, run=runs.get(key)) for key, at in by_event.items()]
    found += [
        PastOccurrence(at=run.queued_at, run=run, manual=True)
        for run in _manual_runs(schedule)
        if run.event_id not in by_event
    ]
    found.sort(key=lambda past: past.at)
    first = next((n for n, past in enumerate(found) if past.run), len(found))
    return found[first:][-MAX_OCCURRENCES:]


def _manual_runs(schedule: Schedule) -> list[Run]:
    """Return runs of a schedule among the newest runs of its function."""
    rows = visibility.runs().filter(function=schedule.function)
    newest = rows.only(*_COLUMNS).annotate(of=KeyTransform("schedule", "event_meta"))
    found: Any = newest.order_by("-pk")[:MAX_SEARCHED]
    return [run for run in found if run.of == schedule.pk]


def _occurrences(schedule: Schedule) -> list[datetime]:
    try:
        cron = expression(schedule.cron, schedule.tz)
        return list(_backwards(cron, clock.now(), schedule.created_at))
    except (ConfigurationError, OverflowError):
        return []


def _backwards(
    cron: CronExpression, now: datetime, since: datetime | None
) -> Iterator[datetime]:
    """Yield past occurrences of a cron expression, latest first."""
    upcoming = cron.next_after(now)
    before, gap = now + _RESOLUTION, cron.next_after(upcoming) - upcoming
    for _number in range(MAX_OCCURRENCES):
        found = _latest(cron, before, gap)
        if found is None or (since is not None and found < since):
            return
        yield found.astimezone(UTC)
        gap, before = max(before - found, _RESOLUTION), found


def _latest(cron: CronExpression, before: datetime, gap: timedelta) -> datetime | None:
    """Return the latest occurrence before a time.

    Search the time span ``gap`` before it first, and then longer ones.
    """
    while gap <= MAX_AGE:
        first = cron.next_after(before - gap)
        if first < before:
            return cron.latest(first, before - _RESOLUTION)
        gap *= 4
    return None


def page(
    function: str | None, limit: int, above: int | None
) -> tuple[list[Schedule], int | None]:
    """Return a page of schedules with larger ids than ``above``, and the last id.

    The last id is the ``above`` of the next page, or None on the last page.
    """
    every = visibility.schedules(db.rows(Schedule))
    rows = every.defer("data", "queued_occurrences").order_by("pk")
    if function is not None:
        rows = rows.filter(function=function)
    if above is not None:
        rows = rows.filter(pk__gt=above)
    found = list(rows[: limit + 1])
    return found[:limit], found[limit - 1].pk if len(found) > limit else None


def get(key: int) -> Schedule | None:
    """Return a schedule, or None."""
    rows = visibility.schedules(db.rows(Schedule))
    found: Schedule | None = rows.filter(pk=key).first()
    return found
