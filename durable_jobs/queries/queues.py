"""The queues now: ready, executing and backlogged runs, workers and pauses.

All counts are capped, and each query covers all queues in one statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Min, QuerySet

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Backlog, Pause, Run, Worker
from durable_jobs.queries import visibility
from durable_jobs.queries.overview import SEEN
from durable_jobs.queries.union import only, together
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db
from durable_jobs.store.leases import MAX_RUN_ORDER_AHEAD

#: Runs counted per queue, backlog or limit. A count of one more means "more than".
MAX_COUNT = 1000
#: Executing runs that are counted by queue and worker.
MAX_EXECUTING = 5000
MAX_WORKERS, MAX_PAUSES = 50, 100


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUsage:
    """A queue: runs that a worker could start now, and runs that are executing.

    ``backlogs`` is the number of backlogs that wait for a limit. The oldest ready run
    has been ready since ``oldest``. ``workers`` is the number of live workers that
    serve the queue.
    """

    name: str
    workers: int
    ready: int
    oldest: datetime | None
    executing: int
    backlogs: int
    pause: Pause | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A worker or a tick: its last heartbeat, and the number of runs that it holds.

    ``seen_at`` is None for a process that holds runs without a heartbeat. ``alive``:
    the last heartbeat is recent.
    """

    name: str
    kind: str
    queues: tuple[str, ...]
    seen_at: datetime | None
    alive: bool
    runs: int


def pauses() -> list[Pause]:
    """Return the pauses, latest first."""
    rows = visibility.pauses(db.rows(Pause))
    return list(rows.order_by("-paused_at", "-pk")[:MAX_PAUSES])


def executing() -> list[dict[str, Any]]:
    """Return the number of runs under a lease, by queue and worker."""
    held = visibility.runs().filter(lease_token__isnull=False)
    rows = only(held.order_by("pk"), MAX_EXECUTING).values("queue", "worker")
    return list(rows.annotate(runs=Count("pk"), until=Min("lease_until")))


def processes(held: Iterable[dict[str, Any]]) -> list[Process]:
    """Return the processes with a heartbeat or with runs, last seen first."""
    runs = Counter[str]()
    queues: dict[str, set[str]] = {}
    for row in held:
        runs[row["worker"]] += row["runs"]
        queues.setdefault(row["worker"], set()).add(row["queue"])
    rows = db.rows(Worker).order_by("-seen_at", "name")[:MAX_WORKERS]
    since = clock.now() - SEEN
    found = {
        row.name: Process(
            name=row.name,
            kind=row.kind,
            queues=tuple(row.queues),
            seen_at=row.seen_at,
            alive=row.seen_at >= since,
            runs=runs[row.name],
        )
        for row in rows
    }
    without_heartbeat = [
        Process(
            name=name,
            kind="worker",
            queues=tuple(sorted(queues[name])),
            seen_at=None,
            alive=False,
            runs=count,
        )
        for name, count in sorted(runs.items())
        if name not in found
    ]
    return [*found.values(), *without_heartbeat[:MAX_WORKERS]]


def queues(
    paused: Iterable[Pause],
    held: Iterable[dict[str, Any]],
    known: Iterable[Process] = (),
) -> list[QueueUsage]:
    """Return by name the queues of declared functions, runs, workers and pauses."""
    serving = Counter(queue for one in known if one.alive for queue in one.queues)
    pause_of = {one.name: one for one in paused if one.kind == Pause.QUEUE}
    busy = Counter[str]()
    for row in held:
        busy[row["queue"]] += row["runs"]
    backlogs = _backlogs_by_queue()
    names = {*registry.queues(), settings.QUEUE, *pause_of, *busy, *backlogs, *serving}
    names |= set(_undeclared(sorted(names)))
    ready = _ready_by_queue(sorted(names))
    return [
        QueueUsage(
            name=name,
            workers=serving[name],
            ready=ready.get(name, (0, None))[0],
            oldest=ready.get(name, (0, None))[1],
            executing=busy[name],
            backlogs=backlogs.get(name, 0),
            pause=pause_of.get(name),
        )
        for name in sorted(names)
    ]


def _ready() -> QuerySet[Run]:
    rows = visibility.runs().filter(status=RunStatus.QUEUED, backlog__isnull=True)
    return rows.order_by("queue", "run_order", "pk")


def _undeclared(names: Sequence[str]) -> list[str]:
    """Return queues with ready runs that sort after one of the names.

    In this way one index lookup per name finds queues that no function declares.
    """
    rows = _ready()
    parts = [rows, *(rows.filter(queue__gt=name) for name in names)]
    return together(only(part, 1).values_list("queue", flat=True) for part in parts)


def _ready_by_queue(names: Sequence[str]) -> dict[str, tuple[int, datetime]]:
    now = clock.now()
    rows = _ready().filter(due_at__lte=now, run_order__lte=now + MAX_RUN_ORDER_AHEAD)
    found = together(
        only(rows.filter(queue=name), MAX_COUNT + 1)
        .values("queue")
        .annotate(runs=Count("pk"), oldest=Min("due_at"))
        .values_list("queue", "runs", "oldest")
        for name in names
    )
    return {queue: (runs, oldest) for queue, runs, oldest in found}


def _backlogs_by_queue() -> dict[str, int]:
    blocked = db.rows(Backlog).filter(blocked_on__isnull=False)
    rows = visibility.backlogs(blocked)
    rows = rows.order_by("blocked_on", "eligible_at", "promoted_count")
    counted = only(rows, MAX_COUNT).values_list("queue").annotate(count=Count("pk"))
    return dict(counted.values_list("queue", "count"))
