"""Figures of what goes on now, from queries that no history makes longer.

Nothing is counted further than to ``MOST``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, QuerySet

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Wait, WaitKind, Worker
from durable_jobs.queries import visibility
from durable_jobs.statuses import TERMINAL, RunStatus
from durable_jobs.store import db

#: As far as anything is counted.
MOST = 10_000
#: Runs that ended are counted for so long after their end.
RECENT = timedelta(minutes=5)
#: Workers that were seen since then are there.
SEEN = timedelta(minutes=2)
#: What can end a run, and is not waited for by it.
_ENDS = (WaitKind.CANCEL, WaitKind.START_BY, WaitKind.FINISH_BY)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMetrics:
    """The runs of a queue that are ready, and since when the first of them is."""

    name: str
    depth: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What goes on in an installation."""

    live: dict[str, int]
    ended: dict[str, int]
    queues: list[QueueMetrics]
    workers: dict[str, int]


def figures() -> Figures:
    """Return what goes on now."""
    now = clock.now()
    names = sorted({settings.QUEUE, *registry.queues()})
    return Figures(
        live=_live(),
        ended=_ended(now),
        queues=[_queue(name, now) for name in names],
        workers=_workers(now),
    )


def _live() -> dict[str, int]:
    runs = visibility.runs()
    waits = db.rows(Wait).exclude(kind__in=_ENDS)
    return {
        RunStatus.QUEUED: _count(runs.filter(status=RunStatus.QUEUED)),
        # By their leases: of their status there is no index.
        RunStatus.RUNNING: _count(
            runs.filter(lease_token__isnull=False, status=RunStatus.RUNNING)
        ),
        # By what they wait for, which is the smaller table.
        RunStatus.WAITING: _count(
            runs.filter(pk__in=waits.values("run_id"), status=RunStatus.WAITING)
        ),
        RunStatus.PAUSED: _count(runs.filter(status=RunStatus.PAUSED)),
    }


def _ended(now: datetime) -> dict[str, int]:
    runs = visibility.runs().filter(ended_at__gt=now - RECENT)
    recent = runs.order_by("-ended_at").values_list("status", flat=True)[:MOST]
    counted = dict.fromkeys(sorted(TERMINAL), 0)
    for status in recent:
        counted[RunStatus(status)] += 1
    return {status.value: count for status, count in counted.items()}


def _queue(name: str, now: datetime) -> QueueMetrics:
    rows = visibility.runs().filter(
        queue=name, status=RunStatus.QUEUED, backlog__isnull=True, due_at__lte=now
    )
    first = rows.order_by("due_at").values_list("due_at", flat=True).first()
    age = 0.0 if first is None else (now - first).total_seconds()
    return QueueMetrics(name=name, depth=_count(rows), oldest_seconds=age)


def _workers(now: datetime) -> dict[str, int]:
    rows = db.rows(Worker).filter(seen_at__gt=now - SEEN)
    return dict(rows.order_by().values_list("kind").annotate(count=Count("pk")))


def _count(rows: QuerySet[Any]) -> int:
    return rows.order_by().values("pk")[:MOST].count()
