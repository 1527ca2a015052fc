"""Find runs, events and functions by what a user types into the search box.

Each kind of match is one or two indexed queries for a few rows. Only short ids have no
index: they are looked for among the newest ``MAX_SEARCHED`` runs.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import CharField
from django.db.models.functions import Cast

from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.definitions.triggers import Cron, Event, ModelChange, Trigger
from durable_jobs.exceptions import FilterError
from durable_jobs.models import Event as StoredEvent
from durable_jobs.models import Run
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import MAX_SEARCHED, RunFilter, storable
from durable_jobs.store import db

#: Rows of each kind of match.
MOST = 5
#: Characters of a search, as long as the longest id or key.
LONGEST = 255

RUN_ID, EVENT_ID, EVENT, KEY = "run id", "event id", "event", "key"
SUBJECT, FUNCTION, SHORT_ID = "subject", "function", "short id"

_SHORT = re.compile(r"[0-9a-f]{8}")
_UNLOADED = ("data", "output", "error", "event_meta")


@dataclass(frozen=True, slots=True)
class Hits:
    """What was found in one way: runs, events, or functions for ``FUNCTION``.

    ``condition`` is the filter that lists all runs found in this way, if there is one.
    """

    kind: str
    rows: Sequence[Any]
    condition: str = ""

    @property
    def full(self) -> bool:
        """Return whether there may be more rows."""
        return len(self.rows) >= MOST


def search(term: str, *, events: bool) -> list[Hits]:
    """Return what a term finds, in order of the kinds. ``events``: search events too.

    A run is returned once, for the first kind that finds it.
    """
    term = term.strip()
    if not 0 < len(term) <= LONGEST or not storable(term):
        return []
    seen: set[uuid.UUID] = set()
    found = [
        _runs(RUN_ID, "id", term),
        Hits(EVENT_ID, _events(term) if events else ()),
        _runs(EVENT, "event", term),
        _runs(KEY, "key", term),
        _runs(SUBJECT, "subject", term),
        Hits(FUNCTION, functions(term)[:MOST]),
        Hits(SHORT_ID, _by_short_id(term)),
    ]
    return [hits for hits in map(_without(seen), found) if hits.rows]


def _without(seen: set[uuid.UUID]) -> Callable[[Hits], Hits]:
    """Return a function that removes the runs that it has met before."""

    def unseen(hits: Hits) -> Hits:
        rows = [row for row in hits.rows if row.id not in seen]
        seen.update(row.id for row in rows if isinstance(row, Run))
        return Hits(hits.kind, rows, hits.condition)

    return unseen


def _runs(kind: str, condition: str, term: str) -> Hits:
    try:
        rows = RunFilter.parse({condition: term}).narrow(visibility.runs())
    except FilterError:  # the term is no such id or subject
        return Hits(kind, ())
    return Hits(kind, _newest(rows), condition)


def _newest(rows: Any) -> list[Run]:
    return list(rows.defer(*_UNLOADED).order_by("-pk")[:MOST])


def _events(term: str) -> list[StoredEvent]:
    rows = visibility.events(db.rows(StoredEvent).filter(pk=term))
    return list(rows.defer("data", "user")[:MOST])


def _by_short_id(term: str) -> list[Run]:
    """Return the newest runs whose ids end in the eight digits that pages show."""
    if not _SHORT.fullmatch(term.lower()):
        return []
    rows = visibility.runs().annotate(digits=Cast("pk", CharField()))
    keys = db.rows(Run).order_by("-pk").values_list("pk", flat=True)
    first = keys[MAX_SEARCHED : MAX_SEARCHED + 1].first()
    if first is not None:
        rows = rows.filter(pk__gt=first)
    return _newest(rows.filter(digits__endswith=term.lower()))


# Functions


def functions(term: str) -> list[Function]:
    """Return the functions whose names or triggers contain all words of a term.

    Functions whose id begins with the term come first.
    """
    start = term.lower()
    found = [one for one in registry if contains(searched_text(one), term)]
    return sorted(found, key=lambda one: (not one.id.lower().startswith(start), one.id))


def contains(text: str, term: str) -> bool:
    """Return whether a text contains all words of a term, in any case."""
    return all(part in text.lower() for part in term.lower().split())


def searched_text(function: Function) -> str:
    """Return the names by which a function is found: its own and its triggers'."""
    triggers = map(_trigger_name, function.triggers)
    return " ".join([function.id, function.name, *triggers])


def _trigger_name(trigger: Trigger) -> str:
    if isinstance(trigger, Cron):
        return ""  # the fields of a cron are no name
    if isinstance(trigger, Event):
        return trigger.name
    return trigger.model if isinstance(trigger, ModelChange) else trigger.path
