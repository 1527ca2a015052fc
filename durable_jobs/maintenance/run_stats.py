"""Count ended runs per five minutes, so that no page counts the history.

Each period is counted once, by the index of ended runs, some time after it is over: all
runs that ended in it have committed by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from datetime import datetime, timedelta

from django.db.models import Case, Count, IntegerField, Max, Min, When

from durable_jobs import clock
from durable_jobs.models import Run, RunStats
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, item_errors

LENGTH = RunStats.LENGTH
#: How long after its end a period is counted.
SETTLED = timedelta(seconds=60)
#: How far back periods are counted, and how long counts are kept.
BACK = timedelta(days=7)
KEPT = timedelta(days=8)
#: Periods that one query counts, and that one sweep counts while no run waits.
BATCH, IDLE_BATCH = 4, 40
#: A sweep that has counted so many runs counts no further batch.
MAX_RUNS = 20_000


def sweep() -> int:
    """Count the uncounted periods, the newest first; return how many."""
    newest = begin_of(clock.now() - SETTLED) - LENGTH
    rows = db.rows(RunStats)
    ended: list[int] = []

    def count(periods: Sequence[datetime]) -> None:
        counts = _count(periods)
        ended.append(sum(row.count for row in counts if row.function))
        # Counts of another process stay: one statement, all or nothing.
        rows.bulk_create(counts, ignore_conflicts=True)

    chosen = _missing(newest, item_errors.postponed("run_stats"), IDLE_BATCH)
    if len(chosen) > BATCH and _any_ready():
        chosen = chosen[:BATCH]
    done = 0
    for start in range(0, len(chosen), BATCH):
        if sum(ended) < MAX_RUNS:
            batch = chosen[start : start + BATCH]
            done += item_errors.guarded_batch("run_stats", batch, count)
    if newest in chosen:
        rows.filter(since__lt=newest - KEPT)._raw_delete(db.alias())
    return done


def _any_ready() -> bool:
    """Return whether a run waits for a worker."""
    queued = db.rows(Run).filter(status=RunStatus.QUEUED, backlog__isnull=True)
    return queued.filter(due_at__lte=clock.now()).exists()


def _missing(newest: datetime, excluding: Set[str], most: int) -> list[datetime]:
    """Return consecutive periods to count now, the newest that are missing.

    ``excluding``: periods that failed and are not retried yet.
    """
    counted = db.rows(RunStats).filter(
        function="", status="", since__gt=newest - BACK, since__lte=newest
    )
    ends = counted.aggregate(first=Min("since"), last=Max("since"), n=Count("pk"))
    oldest, at = newest - BACK + LENGTH, newest
    done: set[datetime] = set()
    if ends["last"] == newest and ends["first"] == newest - LENGTH * (ends["n"] - 1):
        at = ends["first"] - LENGTH  # no period in between is missing
    else:
        done = set(counted.values_list("since", flat=True))
    if excluding:
        done = set(counted.values_list("since", flat=True))
        done |= {
            newest - LENGTH * n
            for n in range(int(BACK / LENGTH))
            if str(newest - LENGTH * n) in excluding
        }
        at = newest
    while at in done:
        at -= LENGTH
    stretch: list[datetime] = []
    while len(stretch) < most and at >= oldest and at not in done:
        stretch.append(at)
        at -= LENGTH
    return stretch


def _count(periods: Sequence[datetime]) -> list[RunStats]:
    """Return the counts of consecutive periods, by one query."""
    ended = db.rows(Run).filter(
        ended_at__gte=min(periods), ended_at__lt=max(periods) + LENGTH
    )
    whens = [
        When(ended_at__gte=since, ended_at__lt=since + LENGTH, then=number)
        for number, since in enumerate(periods)
    ]
    period = Case(*whens, output_field=IntegerField())
    found = (
        ended.order_by()
        .annotate(period=period)
        .values_list("period", "function", "status")
        .annotate(n=Count("pk"))
    )
    totals, rows = Counter[int](), []
    for number, function, status, count in found:
        totals[number] += count
        rows.append(
            RunStats(
                since=periods[number], function=function, status=status, count=count
            )
        )
    return rows + [
        RunStats(since=since, count=totals[number])
        for number, since in enumerate(periods)
    ]


def begin_of(moment: datetime) -> datetime:
    """Return the beginning of the period that contains a time."""
    stamp = int(moment.timestamp() // LENGTH.total_seconds())
    return datetime.fromtimestamp(stamp * LENGTH.total_seconds(), tz=moment.tzinfo)
