"""Failed runs, grouped for the overview. The query reads the newest of them alone."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models.fields.json import KT

from durable_jobs.queries import visibility
from durable_jobs.statuses import RunStatus

#: Failed runs that are grouped, and groups that are returned.
FAILURES, GROUPS = 500, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorGroup:
    """Failed runs with the same function, type of error and step."""

    function: str
    type: str
    step: str
    message: str
    count: int
    last: datetime
    run: Any


def error_groups() -> list[ErrorGroup]:
    """Return the newest failed runs, grouped by function, error and step."""
    rows = visibility.runs().order_by().filter(status=RunStatus.FAILED)
    named = rows.annotate(
        type=KT("error__type"), step=KT("error__step"), message=KT("error__message")
    )
    newest: Any = named.order_by("-pk").values(
        "pk", "function", "type", "step", "message", "ended_at"
    )
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in newest[:FAILURES]:
        key = row["function"], row["type"] or "", row["step"] or ""
        groups[key].append(row)
    found = [
        ErrorGroup(
            function=key[0],
            type=key[1],
            step=key[2],
            message=rows[0]["message"] or "",
            count=len(rows),
            last=max(row["ended_at"] for row in rows),
            run=rows[0]["pk"],
        )
        for key, rows in groups.items()
    ]
    return sorted(found, key=lambda group: (-group.count, group.function))[:GROUPS]
