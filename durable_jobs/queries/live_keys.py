"""The keys of a function's flow control that its live runs have now."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef

from durable_jobs.definitions.function import Function
from durable_jobs.flow_control import keys
from durable_jobs.models import Backlog, Slot
from durable_jobs.queries import visibility
from durable_jobs.queries.union import only
from durable_jobs.statuses import LIVE, RunStatus
from durable_jobs.store import db

#: Slots, backlogs and newest runs of the function that are read.
MAX_READ = 1000


@dataclass(frozen=True, slots=True)
class LiveKeys:
    """The keys as canonical JSON, sorted. ``complete``: there are no others."""

    texts: list[str]
    complete: bool

    @property
    def values(self) -> list[Any]:
        """The keys."""
        return [json.loads(text) for text in self.texts]

    def misses(self, value: Any) -> bool:
        """Return whether no live run has a key; False if that is not known."""
        return self.complete and keys.key_text(keys.normalized(value)) not in self.texts


def live_keys(function: Function) -> LiveKeys:
    """Return the keys of live runs that hold slots, wait in backlogs, or are new."""
    held, waiting = _slots(), _backlogs(function)
    expressions = keys.key_expressions(function)
    keyed = {name for name, key in expressions.items() if key is not None}
    found = {key for holder, key in held if holder == function.id and key}
    for flow in [*waiting, *_newest(function)]:
        found |= {keys.key_text(flow[name]) for name in keyed & flow.keys()}
    complete = max(len(held), len(waiting)) < MAX_READ
    return LiveKeys(sorted(found), complete and not visibility.is_narrowed())


def _slots() -> list[tuple[str, str]]:
    """Return the functions and keys of the newest slots in use."""
    rows = visibility.of_runs(db.rows(Slot).filter(released_at__isnull=True))
    newest = only(rows.order_by("-pk"), MAX_READ)
    return list(newest.values_list("run__function", "limit__key"))


def _backlogs(function: Function) -> list[dict[str, Any]]:
    """Return the keys of backlogs in which runs wait."""
    queued = visibility.runs().filter(
        status=RunStatus.QUEUED, backlog__isnull=False, backlog=OuterRef("pk")
    )
    rows = db.rows(Backlog).filter(Exists(queued), function=function.id)
    return list(rows.values_list("keys", flat=True)[:MAX_READ])


def _newest(function: Function) -> Iterator[dict[str, Any]]:
    """Yield the keys of the newest runs, which may have no slot or backlog."""
    rows = visibility.runs().filter(function=function.id).order_by("-pk")
    for status, flow in rows.values_list("status", "flow")[:MAX_READ]:
        if status in LIVE and flow:
            yield flow
