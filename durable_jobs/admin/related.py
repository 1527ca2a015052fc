"""Objects related to a run: its event, parent, child runs and subjects."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.db.models import QuerySet
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.display import badge, elapsed, length, moment, short, tail
from durable_jobs.admin.links import Links
from durable_jobs.models import Event, Run, Subject
from durable_jobs.queries import visibility
from durable_jobs.store import db

#: Related rows of one kind on a page. The linked list has all of them.
MOST = 50
#: Columns of a run that tables of runs do not load.
RUN_PAYLOADS = ("data", "output", "error", "event_meta")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run as a row of a small table."""

    id: SafeString
    function: str
    parent_relation: str
    status: SafeString
    queued: SafeString | None
    took: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """A small table of runs, and the URL of the full list if there are more."""

    rows: list[RunRow]
    more: str | None


class Related:
    """Related objects of a run, or of one of its steps, that the viewer may see."""

    def __init__(self, run: Run, links: Links, parent_step: str | None = None) -> None:
        self._run, self._links = run, links
        rows = visibility.runs().filter(parent_id=run.pk)
        if parent_step is not None:
            rows = rows.filter(parent_step=parent_step)
        self.children = newest(rows)

    @property
    def started(self) -> RunTable | None:
        """Return the child runs."""
        more = self._links.rows(Run, parent=self._run.pk)
        return run_table(self.children, self._links, more)

    def neighbours(self) -> list[tuple[Any, list[SafeString]]]:
        """Return links to the run's function, event, parent and subjects."""
        groups = (
            (_("function"), [self._function()]),
            (_("event"), self._event()),
            (_("started by"), self._parent()),
            (_("about"), self._subjects()),
        )
        return [(label, found) for label, found in groups if found]

    def _function(self) -> SafeString:
        name = self._run.function
        return self._links.anchor(self._links.rows(Run, function=name), name)

    def _event(self) -> list[SafeString]:
        key = self._run.event_id
        if key is None:
            return []
        # A viewer who may see a run may also see its event.
        there = db.rows(Event).filter(pk=key).exists()
        address = self._links.page(Event, key) if there else None
        return [self._links.anchor(address, short(key))]

    def _parent(self) -> list[SafeString]:
        key = self._run.parent_id
        if key is None:
            return []
        rows = visibility.runs().filter(pk=key)
        function = rows.values_list("function", flat=True).first()
        address = self._links.page(Run, key) if function else None
        link = self._links.anchor(address, f"{function or ''} {tail(key)}".strip())
        return [format_html("{} · {}", link, self._run.parent_relation)]

    def _subjects(self) -> list[SafeString]:
        return subjects([self._run], self._links).get(self._run.pk, [])


def subjects(
    runs: Iterable[Run], links: Links, most: int = MOST
) -> dict[uuid.UUID, list[SafeString]]:
    """Return the subjects of some runs, at most ``most``, in one query."""
    rows = db.rows(Subject).filter(run_id__in={run.pk for run in runs})
    found: dict[uuid.UUID, list[SafeString]] = {}
    for one in rows.order_by("pk")[:most]:
        found.setdefault(one.run_id, []).append(_subject(one, links))
    return found


def _subject(subject: Subject, links: Links) -> SafeString:
    try:
        model = apps.get_model(subject.model)
    except (LookupError, ValueError):
        return links.anchor(None, subject)  # the model no longer exists
    return links.anchor(links.page(model, subject.object_pk), subject)


def newest(runs: QuerySet[Run]) -> Sequence[Run]:
    """Return the newest runs without payloads, one more than a table lists."""
    return list(runs.defer(*RUN_PAYLOADS).order_by("-pk")[: MOST + 1])


def run_table(runs: Sequence[Run], links: Links, more: str | None) -> RunTable | None:
    """Return a small table of runs, or None if there are none."""
    if not runs:
        return None
    rows = [run_row(run, links) for run in runs[:MOST]]
    return RunTable(rows=rows, more=more if len(runs) > MOST else None)


def run_row(run: Run, links: Links) -> RunRow:
    """Return a run as a row of a small table."""
    return RunRow(
        id=links.anchor(links.page(Run, run.pk), short(run.pk)),
        function=run.function,
        parent_relation=run.parent_relation,
        status=badge(run),
        queued=moment(run.queued_at),
        took=length(elapsed(run)),
    )
