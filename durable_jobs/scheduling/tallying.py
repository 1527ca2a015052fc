"""Counting what has ended, five minutes at a time: no page counts the history.

Each five minutes are counted once, by the index of the ends, when they are over for a
while: a run that ended in them has committed by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.db.models import Count

from durable_jobs import clock
from durable_jobs.models import Run, Tally
from durable_jobs.store import db

LENGTH = Tally.LENGTH
#: How long after its end a period is counted.
SETTLED = timedelta(seconds=60)
#: What is looked back at, and how long it is kept.
BACK = timedelta(days=7)
KEPT = timedelta(days=8)
#: Periods that one sweep counts.
BATCH = 4


def sweep() -> int:
    """Count what is not counted yet, the newest first; return how many periods."""
    newest = begin_of(clock.now() - SETTLED) - LENGTH
    done = set(
        Tally.objects.using(db.alias())
        .filter(function="", status="", since__gte=newest - BACK)
        .values_list("since", flat=True)
    )
    missing = (newest - LENGTH * n for n in range(int(BACK / LENGTH)))
    chosen = [since for since in missing if since not in done][:BATCH]
    if chosen:
        rows = [row for since in chosen for row in _count(since)]
        # What another has counted meanwhile stays: one statement, all or nothing.
        kept = Tally.objects.using(db.alias())
        kept.bulk_create(rows, ignore_conflicts=True)
        kept.filter(since__lt=newest - KEPT)._raw_delete(db.alias())
    return len(chosen)


def _count(since: datetime) -> Iterator[Tally]:
    ended = Run.objects.using(db.alias()).filter(
        ended_at__gte=since, ended_at__lt=since + LENGTH
    )
    found = ended.order_by().values_list("function", "status").annotate(n=Count("pk"))
    total = 0
    for function, status, number in found:
        total += number
        yield Tally(since=since, function=function, status=status, count=number)
    yield Tally(since=since, count=total)


def begin_of(moment: datetime) -> datetime:
    """Return the beginning of the period that a moment is in."""
    stamp = int(moment.timestamp() // LENGTH.total_seconds())
    return datetime.fromtimestamp(stamp * LENGTH.total_seconds(), tz=moment.tzinfo)
