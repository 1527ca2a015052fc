"""Queues and limits as they are now: what waits in them, who holds them, what stands.

Everything is capped, and asked for many queues or limits in one statement.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Count, Min, Q, QuerySet
from django.utils.dateparse import parse_datetime

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import DurableError, FilterError
from durable_jobs.flow_control import keys
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.models import Backlog, Limit, Pause, Run, Slot, Worker
from durable_jobs.queries import visibility
from durable_jobs.queries.overview import SEEN
from durable_jobs.queries.union import only, together
from durable_jobs.statuses import RunStatus
from durable_jobs.store import backlogs, db
from durable_jobs.store.leases import MAX_RUN_ORDER_AHEAD

#: Runs that are counted of one queue, line or limit; one more stands for more.
COUNTED = 1000
#: Runs that are executing, which are counted by queue and worker.
EXECUTING = 5000
WORKERS, PAUSES = 50, 100
#: Limits on a page, and of each the holders, the lines, and the first runs in them.
LIMITS, HOLDERS, LINES, FIRST = 20, 8, 5, 3
#: Limits used last, among which those of a function or a key are looked for.
LOOKED_THROUGH = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUsage:
    """A queue: runs that a worker could begin now, and what is executing.

    ``lines`` wait for a limit. ``oldest`` has been ready since then. ``workers`` serve
    it, and were seen a moment ago.
    """

    name: str
    workers: int
    ready: int
    oldest: datetime | None
    executing: int
    lines: int
    pause: Pause | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A worker or the tick: when it was seen, and the runs that it holds.

    ``seen`` is None for one that holds runs and has left no word. ``there``: it was
    seen a moment ago.
    """

    name: str
    kind: str
    queues: tuple[str, ...]
    seen: datetime | None
    there: bool
    runs: int


def pauses() -> list[Pause]:
    """Return what is paused, the latest first."""
    rows = visibility.pauses(db.rows(Pause))
    return list(rows.order_by("-paused_at", "-pk")[:PAUSES])


def executing() -> list[dict[str, Any]]:
    """Return how many runs are held, by queue and worker."""
    held = visibility.runs().filter(lease_token__isnull=False)
    rows = only(held.order_by("pk"), EXECUTING).values("queue", "worker")
    return list(rows.annotate(runs=Count("pk"), until=Min("lease_until")))


def processes(held: Iterable[dict[str, Any]]) -> list[Process]:
    """Return who is there, or holds runs, the last seen first."""
    runs = Counter[str]()
    queues: dict[str, set[str]] = {}
    for row in held:
        runs[row["worker"]] += row["runs"]
        queues.setdefault(row["worker"], set()).add(row["queue"])
    rows = db.rows(Worker).order_by("-seen_at", "name")[:WORKERS]
    since = clock.now() - SEEN
    found = {
        row.name: Process(
            name=row.name,
            kind=row.kind,
            queues=tuple(row.queues),
            seen=row.seen_at,
            there=row.seen_at >= since,
            runs=runs[row.name],
        )
        for row in rows
    }
    silent = [
        Process(
            name=name,
            kind="worker",
            queues=tuple(sorted(queues[name])),
            seen=None,
            there=False,
            runs=count,
        )
        for name, count in sorted(runs.items())
        if name not in found
    ]
    return [*found.values(), *silent[:WORKERS]]


def queues(
    paused: Iterable[Pause],
    held: Iterable[dict[str, Any]],
    there: Iterable[Process] = (),
) -> list[QueueUsage]:
    """Return the queues that the code, runs, workers or pauses name, by name."""
    serving = Counter(queue for one in there if one.there for queue in one.queues)
    stopped = {one.name: one for one in paused if one.kind == Pause.QUEUE}
    busy = Counter[str]()
    for row in held:
        busy[row["queue"]] += row["runs"]
    lines = _lines_by_queue()
    names = {*registry.queues(), settings.QUEUE, *stopped, *busy, *lines, *serving}
    names |= set(_after(sorted(names)))
    ready = _ready_by_queue(sorted(names))
    return [
        QueueUsage(
            name=name,
            workers=serving[name],
            ready=ready.get(name, (0, None))[0],
            oldest=ready.get(name, (0, None))[1],
            executing=busy[name],
            lines=lines.get(name, 0),
            pause=stopped.get(name),
        )
        for name in sorted(names)
    ]


def _ready() -> QuerySet[Run]:
    rows = visibility.runs().filter(status=RunStatus.QUEUED, backlog__isnull=True)
    return rows.order_by("queue", "run_order", "pk")


def _after(names: Sequence[str]) -> list[str]:
    """Return the queues with work that follow these: those that no code names."""
    rows = _ready()
    parts = [rows, *(rows.filter(queue__gt=name) for name in names)]
    return together(only(part, 1).values_list("queue", flat=True) for part in parts)


def _ready_by_queue(names: Sequence[str]) -> dict[str, tuple[int, datetime]]:
    now = clock.now()
    rows = _ready().filter(due_at__lte=now, run_order__lte=now + MAX_RUN_ORDER_AHEAD)
    found = together(
        only(rows.filter(queue=name), COUNTED + 1)
        .values("queue")
        .annotate(runs=Count("pk"), oldest=Min("due_at"))
        .values_list("queue", "runs", "oldest")
        for name in names
    )
    return {queue: (runs, oldest) for queue, runs, oldest in found}


def _lines_by_queue() -> dict[str, int]:
    blocked = db.rows(Backlog).filter(blocked_on__isnull=False)
    rows = visibility.backlogs(blocked)
    chosen = only(rows.order_by("blocked_on", "eligible_at", "promoted_count"), COUNTED)
    counted = chosen.values_list("queue").annotate(count=Count("pk"))
    return dict(counted.values_list("queue", "count"))


# Limits


@dataclass(slots=True)
class BacklogRow:
    """Runs that wait for a limit, one behind the other."""

    function: str
    turn: datetime
    runs: int = 0
    first: list[Run] = field(default_factory=list)


@dataclass(slots=True)
class LimitUsage:
    """A limit in use: the rule that it goes by, who holds it, and who waits for it."""

    row: Limit
    keyed_limit: KeyedLimit | None
    held: int = 0
    holders: list[tuple[Run, datetime]] = field(default_factory=list)
    lines: list[BacklogRow] = field(default_factory=list)
    more_lines: bool = False


def limits(
    *, function: str = "", key: str = "", before: str = ""
) -> tuple[list[LimitUsage], str | None]:
    """Return limits, those used last first, and where the next ones begin.

    With ``function`` or ``key``, those of the limits used last; with both, exactly
    theirs. ``before`` is what came with the ones before. Raises ``FilterError``.
    """
    rows = _chosen(function, key)
    if before:
        rows = _behind(rows, before)
    limit_rows = list(rows.order_by("-used_at", "-pk")[: LIMITS + 1])
    found = [
        LimitUsage(limit_row, keyed_limit_of(limit_row))
        for limit_row in limit_rows[:LIMITS]
    ]
    _fill(found)
    if len(limit_rows) <= LIMITS:
        return found, None
    last = limit_rows[LIMITS - 1]
    return found, f"{last.used_at.isoformat()} {last.pk}"


def _chosen(function: str, key: str) -> QuerySet[Limit]:
    if "\x00" in function + key:
        raise FilterError("Expected a text without null characters.")
    rows = visibility.limits(db.rows(Limit).exclude(control="lock"))
    known = registry.find(function)
    if known is not None and key:
        names = [
            one.name for value in _values(key) for one in _keyed_limits(known, value)
        ]
        return rows.filter(name__in=names)
    if function or key:
        rows = only(rows.order_by("-used_at", "-pk"), LOOKED_THROUGH)
    if function:
        rows = rows.filter(function=function)
    return rows.filter(key__in=_values(key)) if key else rows


def _values(key: str) -> list[str]:
    """Return what a typed key may be as canonical JSON: that JSON, or that text."""
    found = []
    for value in (_json(key), key):
        try:
            found.append(keys.text_of(keys.normal(value)))
        except DurableError:
            continue
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _behind(rows: QuerySet[Limit], before: str) -> QuerySet[Limit]:
    time, _space, number = before.partition(" ")
    try:
        moment, pk = parse_datetime(time), int(number)
    except (ValueError, ValidationError):
        moment, pk = None, 0
    if moment is None or moment.utcoffset() is None or not 0 <= pk < 2**63:
        raise FilterError("Expected what a list has given as 'before'.")
    tied = Q(used_at__lt=moment) | Q(pk__lt=pk)
    return rows.filter(tied, used_at__lte=moment)


def keyed_limit_of(limit_row: Limit) -> KeyedLimit | None:
    """Return the rule that a limit goes by; None when the code has it no more."""
    ids = [limit_row.function] if limit_row.function else registry.sharing()
    for one in ids:
        function = registry.find(one)
        for keyed_limit in (
            _keyed_limits(function, limit_row.key or "null") if function else ()
        ):
            if keyed_limit.name == limit_row.name:
                return keyed_limit
    return None


def _keyed_limits(function: Function, text: str) -> Iterator[KeyedLimit]:
    """Give the limits of a function for one key, as canonical JSON."""
    controls = function.controls
    places: list[tuple[str, Any]] = [
        (f"{keys.CONCURRENCY}:{index}", rule)
        for index, rule in enumerate(controls.concurrency)
    ]
    for name in (keys.THROTTLE, keys.RATE_LIMIT, keys.SINGLETON):
        rule = getattr(controls, name)
        if rule is not None:
            places.append((name, rule))
    if controls.ordering is not None:
        places.append((keys.ORDERING, None))
    for place, rule in places:
        shared = getattr(rule, "scope", "") == "account"
        control = place.partition(":")[0]
        yield KeyedLimit(control, place, function, None, text, rule, shared)


def _fill(found: Sequence[LimitUsage]) -> None:
    """Add who holds the limits, and who waits for them."""
    by_limit = {limit.row.pk: limit for limit in found}
    every = db.rows(Slot).filter(released_at__isnull=True)
    held = visibility.of_runs(every)
    at = {pk: held.filter(limit_id=pk).order_by("pk") for pk in by_limit}
    for pk, count in together(
        only(rows, COUNTED + 1)
        .values("limit_id")
        .annotate(count=Count("pk"))
        .values_list("limit_id", "count")
        for rows in at.values()
    ):
        by_limit[pk].held = count
    slots = together(
        only(rows, HOLDERS).values_list("limit_id", "run_id", "since")
        for rows in at.values()
    )
    runs = _runs(run_id for _limit, run_id, _since in slots)
    for limit_row, run_id, since in sorted(slots, key=lambda slot: slot[2]):
        if run_id in runs:
            by_limit[limit_row].holders.append((runs[run_id], since))
    _fill_lines(by_limit)


def _fill_lines(by_limit: dict[int, LimitUsage]) -> None:
    rows = visibility.backlogs(db.rows(Backlog))
    chosen = together(
        only(
            rows.filter(blocked_on_id=pk).order_by("eligible_at", "promoted_count"),
            LINES + 1,
        )
        .values_list("blocked_on_id", "pk", "function", "eligible_at")
        for pk in by_limit
    )  # fmt: skip
    lines: dict[int, BacklogRow] = {}
    for limit_row, backlog, function, turn in sorted(chosen, key=lambda one: one[3]):
        limit = by_limit[limit_row]
        if len(limit.lines) == LINES:
            limit.more_lines = True
            continue
        lines[backlog] = BacklogRow(function, turn)
        limit.lines.append(lines[backlog])
    counts = together(
        only(visibility.of_runs(backlogs.waiting(backlog), "pk"), COUNTED + 1)
        .values("backlog")
        .annotate(count=Count("pk"))
        .values_list("backlog", "count")
        for backlog in lines
    )
    first = together(
        only(visibility.of_runs(backlogs.waiting(backlog), "pk"), FIRST).values_list(
            "backlog", "run_order", "pk"
        )
        for backlog in lines
    )
    runs = _runs(pk for _backlog, _place, pk in first)
    for backlog, count in counts:
        lines[backlog].runs = count
    for backlog, _place, pk in sorted(first):
        if pk in runs:
            lines[backlog].first.append(runs[pk])


def _runs(run_ids: Iterable[Any]) -> dict[Any, Run]:
    rows = visibility.runs().only("function", "status", "queued_at")
    return rows.in_bulk(list(run_ids))
