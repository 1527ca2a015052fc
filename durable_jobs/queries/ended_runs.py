"""The ends of runs by period and by function, for the overview.

The tick counts ended runs (``RunStats``). The minutes that it has not counted yet are
counted here, up to ``MAX_RUNS``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, Min, Q, QuerySet, Sum

from durable_jobs.models import RunStats
from durable_jobs.queries import visibility
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db

#: Maximum of ended runs that are counted besides RunStats.
MAX_RUNS = 10_000
PERIODS = (
    ("1h", timedelta(hours=1)),
    ("24h", timedelta(hours=24)),
    ("7d", timedelta(days=7)),
)
HOURS = 24
BAD = frozenset({RunStatus.FAILED.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Ends of runs in a period. ``ended`` includes ``failed``.

    A redriven run ends more than once. While the tick still counts the past, only the
    ends from ``since`` on are counted; otherwise ``since`` is None.
    """

    name: str
    length: timedelta
    ended: int
    failed: int
    since: datetime | None = None

    @property
    def share(self) -> float:
        """Return the failed share, from 0 to 1."""
        return self.failed / self.ended if self.ended else 0.0


@dataclass(slots=True, kw_only=True)
class OverviewLine:
    """All and failed runs of a function per hour of the last 24 hours, oldest first."""

    function: str
    ended: list[int] = field(default_factory=lambda: [0] * HOURS)
    failed: list[int] = field(default_factory=lambda: [0] * HOURS)


class EndedRuns:
    """The run statistics of a week, and the ended runs that they do not count yet."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._run_stats = db.rows(RunStats).exclude(function="")
        marks = db.rows(RunStats).filter(function="")
        first = now - PERIODS[0][1]
        if visibility.is_narrowed():  # the statistics count all runs
            self._run_stats, marks = self._run_stats.none(), marks.none()
            first = now - PERIODS[-1][1]
        ends = marks.filter(since__gte=now - PERIODS[-1][1]).aggregate(
            first=Min("since"), last=Max("since"), n=Count("pk")
        )
        last = ends["last"]
        self._from = first if last is None else last + RunStats.LENGTH
        #: From when on all ends are counted.
        late = last is None or self._from < first
        self._since = first if late else _unbroken(marks, **ends)
        rest = visibility.runs().order_by().filter(ended_at__gte=max(self._from, first))
        newest: Any = rest.order_by("-ended_at").values_list(
            "function", "status", "ended_at"
        )
        self._rest = list(newest[:MAX_RUNS])
        #: Whether only the newest runs were counted.
        self.capped = len(self._rest) == MAX_RUNS

    def periods(self) -> list[Period]:
        """Return the ended runs of each period."""
        return [self._period(name, length) for name, length in PERIODS]

    def _period(self, name: str, length: timedelta) -> Period:
        since = self._now - length
        # The oldest five minutes of the period may have begun before it.
        late = self._since > since + RunStats.LENGTH
        since = self._since if late else since
        counted = self._run_stats.filter(since__gte=since).aggregate(
            ended=Sum("count"), failed=Sum("count", filter=Q(status__in=BAD))
        )
        rest = [status for _, status, ended in self._rest if ended >= since]
        return Period(
            name=name,
            length=length,
            ended=(counted["ended"] or 0) + len(rest),
            failed=(counted["failed"] or 0) + sum(one in BAD for one in rest),
            since=since if late else None,
        )

    def lines(self) -> list[OverviewLine]:
        """Return the functions of the last 24 hours, busiest first."""
        since = self._now - timedelta(hours=HOURS)
        rows = self._run_stats.filter(since__gte=since).values_list(
            "function", "status", "since", "count"
        )
        found: dict[str, OverviewLine] = {}
        rest = ((function, status, at, 1) for function, status, at in self._rest)
        for function, status, at, count in [*rows, *rest]:
            line = found.setdefault(function, OverviewLine(function=function))
            if at >= since:
                hour = min(int((at - since) / timedelta(hours=1)), HOURS - 1)
                line.ended[hour] += count
                line.failed[hour] += count * (status in BAD)
        return sorted(
            found.values(), key=lambda line: (-sum(line.ended), line.function)
        )


def _unbroken(
    marks: QuerySet[RunStats], first: datetime, last: datetime, n: int
) -> datetime:
    """Return the start of the newest counted five minutes without a gap."""
    if first == last - RunStats.LENGTH * (n - 1):
        return first
    done = set(marks.filter(since__gte=first).values_list("since", flat=True))
    while last - RunStats.LENGTH in done:
        last -= RunStats.LENGTH
    return last
