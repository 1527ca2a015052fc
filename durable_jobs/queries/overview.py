"""The overview of an installation. Every query is bounded; none reads the history.

Durations are those of the runs that ended last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Max, Q, QuerySet
from django.db.models.fields.json import KT

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Limit, Pause, Run, Worker
from durable_jobs.queries import visibility
from durable_jobs.queries.ended_runs import EndedRuns, OverviewLine, Period
from durable_jobs.queries.error_groups import ErrorGroup, error_groups
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, left_work, workers

#: Maximum of counted runs per status.
MOST = 10_000
#: Runs for the percentiles, and runs that are grouped by function.
SAMPLE, FAILURES = 1000, 500
GROUPS = 10
#: The maximum age of the last heartbeat of a live worker.
SEEN = timedelta(minutes=1)
LATE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The number of runs in a status. ``more``: there are more than were counted."""

    status: str
    count: int
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Percentiles of queue times and durations, or None without runs."""

    runs: int
    wait_50: timedelta | None
    wait_95: timedelta | None
    took_50: timedelta | None
    took_95: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """A problem that needs a person. ``filters`` are filters of the list of runs.

    ``key`` is a key of flow control, ``problem`` the error of a dynamic limit. Show
    both only to users who may see payloads.
    """

    what: str
    count: int = 1
    name: str = ""
    key: str = ""
    reason: str = ""
    problem: str = ""
    filters: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """All parts of the overview at one time."""

    at: datetime
    states: list[Counted]
    periods: list[Period]
    times: Times
    lines: list[OverviewLine]
    errors: list[ErrorGroup]
    attention: list[Attention]
    oldest: timedelta | None
    ticked: datetime | None
    workers: int
    capped: bool


def overview() -> Overview:
    """Return the overview."""
    now = clock.now()
    ended = EndedRuns(now)
    return Overview(
        at=now,
        states=_states(),
        periods=ended.periods(),
        times=_times(),
        lines=ended.lines(),
        errors=error_groups(),
        attention=[*_attention(now)],
        oldest=_oldest(now),
        ticked=_ticked(),
        capped=ended.capped,
        workers=_workers(now),
    )


def _runs() -> QuerySet[Run]:
    rows: QuerySet[Run] = visibility.runs().order_by()
    return rows


# Current state


def _states() -> list[Counted]:
    queued = Q(status=RunStatus.QUEUED)
    found = [
        # Each part has its own index.
        (RunStatus.QUEUED, _capped(queued & Q(backlog__isnull=True))),
        (RunStatus.QUEUED, _capped(queued & Q(backlog__isnull=False))),
        (RunStatus.RUNNING, _capped(Q(lease_token__isnull=False))),
        (RunStatus.WAITING, _capped(Q(status=RunStatus.WAITING))),
        (RunStatus.PAUSED, _capped(Q(status=RunStatus.PAUSED))),
    ]
    counts: Counter[str] = Counter()
    for status, count in found:
        counts[status] += count
    return [
        Counted(status=status, count=min(count, MOST), more=count > MOST)
        for status, count in counts.items()
    ]


def _capped(condition: Q) -> int:
    return int(_runs().filter(condition)[: MOST + 1].count())


def _oldest(now: datetime) -> timedelta | None:
    """Return how long the oldest ready run has been waiting for a worker."""
    ready = _runs().filter(
        status=RunStatus.QUEUED, backlog__isnull=True, due_at__lte=now
    )
    queues = {function.queue for function in registry} | {"default"}
    places = [
        ready.filter(queue=queue).order_by("run_order").values_list("due_at", flat=True)
        for queue in sorted(queues)
    ]
    dues = [due for rows in places if (due := rows.first()) is not None]
    return now - min(dues) if dues else None


def _ticked() -> datetime | None:
    rows = db.rows(Worker).filter(kind="beat")
    last: datetime | None = rows.aggregate(last=Max("seen_at"))["last"]
    return last


def _workers(now: datetime) -> int:
    rows = db.rows(Worker).filter(seen_at__gte=now - SEEN)
    return int(rows.exclude(kind="beat").count())


# Durations


def _times() -> Times:
    rows = _runs().filter(ended_at__isnull=False, started_at__isnull=False)
    newest: Any = rows.order_by("-ended_at").values_list(
        "queued_at", "started_at", "ended_at", "stopped_for"
    )
    found = list(newest[:SAMPLE])
    waits = sorted(started - queued for queued, started, *_ in found)
    took = sorted(
        ended - started - (stopped or timedelta())
        for _, started, ended, stopped in found
    )
    return Times(
        runs=len(found),
        wait_50=_percentile(waits, 0.5),
        wait_95=_percentile(waits, 0.95),
        took_50=_percentile(took, 0.5),
        took_95=_percentile(took, 0.95),
    )


def _percentile(sorted_: Sequence[timedelta], share: float) -> timedelta | None:
    """Return the nearest-rank percentile."""
    return (
        sorted_[min(int(share * len(sorted_)), len(sorted_) - 1)] if sorted_ else None
    )


# Problems that need a person


def _attention(now: datetime) -> Iterator[Attention]:
    ticked = _ticked()
    if ticked is None or ticked < now - LATE:
        yield Attention(what="no-tick")
    expired = _runs().filter(lease_token__isnull=False, lease_until__lt=now - LATE)
    yield from _some("stuck", expired, {"status": "running"})
    paused = _runs().filter(status=RunStatus.PAUSED).order_by("-pk")
    reasons = Counter(paused.values_list("function", "reason")[:FAILURES])
    for (function, reason), count in reasons.most_common(GROUPS):
        filters = {"status": RunStatus.PAUSED.value, "function": function}
        yield Attention(
            what="paused", count=count, name=function, reason=reason, filters=filters
        )
    failed = _runs().filter(status=RunStatus.FAILED).order_by("-pk")
    lost = Counter(
        function
        for function, kind in failed.annotate(kind=KT("error__type")).values_list(
            "function", "kind"
        )[:FAILURES]
        if kind == "WorkerLost"
    )
    for function, count in lost.most_common(GROUPS):
        filters = {"status": RunStatus.FAILED.value, "function": function}
        yield Attention(what="exhausted", count=count, name=function, filters=filters)
    yield from _unknown()
    yield from _newer_version()
    pauses = visibility.pauses(db.rows(Pause))
    for pause in pauses.order_by("-paused_at")[:GROUPS]:
        yield Attention(
            what=f"paused-{pause.kind}",
            name=pause.name,
            key=pause.key,
            reason=pause.reason,
        )
    limit_rows = visibility.limits(db.rows(Limit).exclude(error=""))
    for limit_row in limit_rows.order_by("-used_at")[:GROUPS]:
        yield Attention(
            what="limit",
            name=str(limit_row),
            key=limit_row.key,
            problem=limit_row.error,
        )


def _some(
    what: str, rows: QuerySet[Run], filters: dict[str, str]
) -> Iterable[Attention]:
    count = rows[: MOST + 1].count()
    return [Attention(what=what, count=count, filters=filters)] if count else []


def _unknown() -> Iterator[Attention]:
    """Yield functions of live runs that no worker has had for a long time."""
    there = workers.functions()
    if there is None:
        return  # a worker of an older version may have the function
    since = dict(workers.missing().values_list("function", "since"))
    known = {*registry.ids(), *there} - since.keys()
    live = Counter[str]()
    for status in (RunStatus.QUEUED, RunStatus.WAITING):
        rows = _runs().filter(status=status)
        if status == RunStatus.QUEUED:
            rows = rows.filter(backlog__isnull=True)
        for function, due_at in rows.values_list("function", "due_at")[:FAILURES]:
            if function not in known:
                live[function] += 1
                since[function] = min(since.get(function, due_at), due_at)
    for function in since.keys() - live.keys():
        live[function] = _capped(Q(function=function, status=RunStatus.QUEUED))
    for function, count in live.items():
        if clock.now() - since[function] >= settings.UNKNOWN_AFTER:
            yield Attention(
                what="unknown",
                count=count,
                name=function,
                filters={"function": function},
            )


def _newer_version() -> Iterator[Attention]:
    """Yield runs that have needed a newer version for a long time."""
    rows = left_work.needing_newer_version(clock.now() - settings.UNKNOWN_AFTER)
    chosen = _runs().filter(pk__in=rows.values("run_id")[:FAILURES])
    found = Counter(chosen.order_by().values_list("function", flat=True))
    for function, count in found.most_common(GROUPS):
        filters = {"status": RunStatus.QUEUED.value, "function": function}
        yield Attention(
            what="newer-version", count=count, name=function, filters=filters
        )
