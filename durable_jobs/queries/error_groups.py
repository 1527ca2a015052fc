"""Failed runs, grouped for the overview. The query reads the newest of them alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models.fields.json import KT

from durable_jobs import clock
from durable_jobs.queries import visibility
from durable_jobs.statuses import RunStatus

#: Failed runs that are grouped, and groups that are returned.
FAILURES, GROUPS = 500, 10
#: The maximum age of a new group.
NEW = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Failed runs with the same function, type of error and step.

    ``step`` is the name of the step, or empty for the function itself. ``new``: the
    first of these runs ended in the last hour.
    """

    function: str
    type: str
    step: str
    message: str
    count: int
    last: datetime
    run: Any
    new: bool


def error_groups() -> list[ErrorGroup]:
    """Return the newest failed runs, grouped by function, error and step.

    The group with the latest end is first.
    """
    rows = visibility.runs().order_by().filter(status=RunStatus.FAILED)
    named = rows.annotate(
        type=KT("error__type"),
        step=KT("error__step_name"),
        message=KT("error__message"),
    )
    columns = ("pk", "function", "type", "step", "message", "ended_at")
    newest = list(named.order_by("-pk").values(*columns)[:FAILURES])
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in newest:
        key = row["function"], row["type"] or "", row["step"] or ""
        groups[key].append(row)
    since = _new_since(newest)
    found = [_group(key, rows, since) for key, rows in groups.items()]
    return sorted(found, key=lambda group: group.last, reverse=True)[:GROUPS]


def _new_since(newest: Sequence[dict[str, Any]]) -> datetime | None:
    """Return when new groups may have begun, or None if that is unknown.

    If all these runs ended in the last hour, there may be older ones of any group.
    """
    since = clock.now() - NEW
    ends = [row["ended_at"] for row in newest]
    return None if len(ends) == FAILURES and min(ends) >= since else since


def _group(
    key: tuple[str, str, str], rows: Sequence[dict[str, Any]], since: datetime | None
) -> ErrorGroup:
    ends = [row["ended_at"] for row in rows]
    return ErrorGroup(
        function=key[0],
        type=key[1],
        step=key[2],
        message=rows[0]["message"] or "",
        count=len(rows),
        last=max(ends),
        run=rows[0]["pk"],
        new=since is not None and min(ends) >= since,
    )
