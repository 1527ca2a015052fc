"""Limits in use: their rules, the runs that hold slots, and the backlogs that wait.

All counts are capped, and each query covers all limits of a page in one statement.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Count, Q, QuerySet
from django.utils.dateparse import parse_datetime

from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import DurableError, FilterError
from durable_jobs.flow_control import keys
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.models import Backlog, Limit, Run, Slot
from durable_jobs.queries import visibility
from durable_jobs.queries.queues import MAX_COUNT
from durable_jobs.queries.union import only, together
from durable_jobs.store import backlogs, db

#: Limits on a page.
PAGE = 20
#: Holders and backlogs of each limit, and the first runs of each backlog.
MAX_HOLDERS, MAX_BACKLOGS, MAX_FIRST = 8, 5, 3
#: Last used limits that a filter by function or by key searches.
MAX_SEARCHED = 5000


@dataclass(slots=True)
class BacklogRow:
    """A backlog that waits for a limit, and the first runs in it."""

    function: str
    eligible_at: datetime
    runs: int = 0
    first: list[Run] = field(default_factory=list)


@dataclass(slots=True)
class LimitUsage:
    """A limit, its declared rule, and the runs that hold slots or wait for slots."""

    row: Limit
    keyed_limit: KeyedLimit | None
    used: int = 0
    holders: list[tuple[Run, datetime]] = field(default_factory=list)
    backlogs: list[BacklogRow] = field(default_factory=list)
    more_backlogs: bool = False


def limits(
    *, function: str = "", key: str = "", before: str = ""
) -> tuple[list[LimitUsage], str | None]:
    """Return a page of limits, last used first, and the cursor of the next page.

    ``function`` or ``key`` alone filters the limits that were used last; both together
    select exactly. ``before`` is the cursor. Raise ``FilterError`` if a value is
    invalid.
    """
    rows = _chosen(function, key)
    if before:
        rows = _after_cursor(rows, before)
    limit_rows = list(rows.order_by("-used_at", "-pk")[: PAGE + 1])
    found = [
        LimitUsage(limit_row, keyed_limit_of(limit_row))
        for limit_row in limit_rows[:PAGE]
    ]
    _fill(found)
    if len(limit_rows) <= PAGE:
        return found, None
    last = limit_rows[PAGE - 1]
    return found, f"{last.used_at.isoformat()} {last.pk}"


def _chosen(function: str, key: str) -> QuerySet[Limit]:
    if "\x00" in function + key:
        raise FilterError("Expected a string without null characters.")
    rows = visibility.limits(db.rows(Limit).exclude(control="lock"))
    known = registry.find(function)
    if known is not None and key:
        names = [
            one.name for value in _values(key) for one in _keyed_limits(known, value)
        ]
        return rows.filter(name__in=names)
    if function or key:
        rows = only(rows.order_by("-used_at", "-pk"), MAX_SEARCHED)
    if function:
        rows = rows.filter(function=function)
    return rows.filter(key__in=_values(key)) if key else rows


def _values(key: str) -> list[str]:
    """Return the canonical JSON of a key typed as JSON or as a plain string."""
    found = []
    for value in (_json(key), key):
        try:
            found.append(keys.key_text(keys.normalized(value)))
        except DurableError:
            continue
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _after_cursor(rows: QuerySet[Limit], before: str) -> QuerySet[Limit]:
    time, _space, number = before.partition(" ")
    try:
        moment, pk = parse_datetime(time), int(number)
    except (ValueError, ValidationError):
        moment, pk = None, 0
    if moment is None or moment.utcoffset() is None or not 0 <= pk < 2**63:
        raise FilterError("Expected the cursor of a page as 'before'.")
    tied = Q(used_at__lt=moment) | Q(pk__lt=pk)
    return rows.filter(tied, used_at__lte=moment)


def keyed_limit_of(limit_row: Limit) -> KeyedLimit | None:
    """Return the declared rule of a limit, or None if it is declared no more."""
    ids = [limit_row.function] if limit_row.function else registry.sharing_limits()
    for one in ids:
        function = registry.find(one)
        for keyed_limit in (
            _keyed_limits(function, limit_row.key or "null") if function else ()
        ):
            if keyed_limit.name == limit_row.name:
                return keyed_limit
    return None


def _keyed_limits(function: Function, text: str) -> Iterator[KeyedLimit]:
    """Yield the limits of a function for one key, given as canonical JSON."""
    controls = function.flow_control
    limit_keys: list[tuple[str, Any]] = [
        (f"{keys.CONCURRENCY}:{index}", rule)
        for index, rule in enumerate(controls.concurrency)
    ]
    for name in (keys.THROTTLE, keys.RATE_LIMIT, keys.SINGLETON):
        rule = getattr(controls, name)
        if rule is not None:
            limit_keys.append((name, rule))
    if controls.ordering is not None:
        limit_keys.append((keys.ORDERING, None))
    for limit_key, rule in limit_keys:
        shared = getattr(rule, "scope", "") == "account"
        control = limit_key.partition(":")[0]
        yield KeyedLimit(control, limit_key, function, None, text, rule, shared)


def _fill(found: Sequence[LimitUsage]) -> None:
    """Add the holders and the backlogs of limits."""
    by_limit = {limit.row.pk: limit for limit in found}
    every = db.rows(Slot).filter(released_at__isnull=True)
    held = visibility.of_runs(every)
    at = {pk: held.filter(limit_id=pk).order_by("pk") for pk in by_limit}
    for pk, count in together(
        only(rows, MAX_COUNT + 1)
        .values("limit_id")
        .annotate(count=Count("pk"))
        .values_list("limit_id", "count")
        for rows in at.values()
    ):
        by_limit[pk].used = count
    slots = together(
        only(rows, MAX_HOLDERS).values_list("limit_id", "run_id", "since")
        for rows in at.values()
    )
    runs = _runs(run_id for _limit, run_id, _since in slots)
    for limit_row, run_id, since in sorted(slots, key=lambda slot: slot[2]):
        if run_id in runs:
            by_limit[limit_row].holders.append((runs[run_id], since))
    _fill_backlogs(by_limit)


def _fill_backlogs(by_limit: dict[int, LimitUsage]) -> None:
    rows = visibility.backlogs(db.rows(Backlog))
    chosen = together(
        only(
            rows.filter(blocked_on_id=pk).order_by("eligible_at", "promoted_count"),
            MAX_BACKLOGS + 1,
        )
        .values_list("blocked_on_id", "pk", "function", "eligible_at")
        for pk in by_limit
    )  # fmt: skip
    rows_by_pk: dict[int, BacklogRow] = {}
    for limit_row, backlog, function, eligible_at in sorted(
        chosen, key=lambda one: one[3]
    ):
        limit = by_limit[limit_row]
        if len(limit.backlogs) == MAX_BACKLOGS:
            limit.more_backlogs = True
            continue
        rows_by_pk[backlog] = BacklogRow(function, eligible_at)
        limit.backlogs.append(rows_by_pk[backlog])
    counts = together(
        only(visibility.of_runs(backlogs.waiting(backlog), "pk"), MAX_COUNT + 1)
        .values("backlog")
        .annotate(count=Count("pk"))
        .values_list("backlog", "count")
        for backlog in rows_by_pk
    )
    first = together(
        only(
            visibility.of_runs(backlogs.waiting(backlog), "pk"), MAX_FIRST
        ).values_list("backlog", "run_order", "pk")
        for backlog in rows_by_pk
    )
    runs = _runs(pk for _backlog, _order, pk in first)
    for backlog, count in counts:
        rows_by_pk[backlog].runs = count
    for backlog, _order, pk in sorted(first):
        if pk in runs:
            rows_by_pk[backlog].first.append(runs[pk])


def _runs(run_ids: Iterable[Any]) -> dict[Any, Run]:
    rows = visibility.runs().only("function", "status", "queued_at")
    return rows.in_bulk(list(run_ids))
