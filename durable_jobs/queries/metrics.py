"""Metrics of the current state, from queries whose cost does not grow with history.

Every count stops at ``MAX_COUNT``.
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

#: The maximum of every count.
MAX_COUNT = 10_000
#: For how long ended runs are counted.
RECENT = timedelta(minutes=5)
#: The maximum age of the last heartbeat of a live worker.
SEEN = timedelta(minutes=2)
#: Kinds of waits that end a run instead of waking it.
_ENDS = (WaitKind.CANCEL, WaitKind.START_BY, WaitKind.FINISH_BY)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueMetrics:
    """The number of ready runs of a queue, and since when the first is ready."""

    name: str
    depth: int
    oldest_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The current state of an installation."""

    live: dict[str, int]
    ended: dict[str, int]
    queues: list[QueueMetrics]
    workers: dict[str, int]


def figures() -> Figures:
    """Return the current metrics."""
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
        # By lease, because there is no index on the status.
        RunStatus.RUNNING: _count(
            runs.filter(lease_token__isnull=False, status=RunStatus.RUNNING)
        ),
        # By wait, because the table of waits is smaller.
        RunStatus.WAITING: _count(
            runs.filter(pk__in=waits.values("run_id"), status=RunStatus.WAITING)
        ),
        RunStatus.PAUSED: _count(runs.filter(status=RunStatus.PAUSED)),
    }


def _ended(now: datetime) -> dict[str, int]:
    runs = visibility.runs().filter(ended_at__gt=now - RECENT)
    recent = runs.order_by("-ended_at").values_list("status", flat=True)[:MAX_COUNT]
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
    return rows.order_by().values("pk")[:MAX_COUNT].count()
