"""Runs of an object in your project's admin: a panel, a column, a warning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.admin import AdminSite
from django.db.models import Model
from django.http import HttpRequest
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from durable_jobs.admin.display import badge, short
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor_of, viewer_of
from durable_jobs.admin.related import RunTable, run_row
from durable_jobs.admin.runs import actions
from durable_jobs.control.run_actions import may
from durable_jobs.lifecycle.run_subjects import label_of
from durable_jobs.models import Run
from durable_jobs.project_code import descriptions_of
from durable_jobs.queries import subjects
from durable_jobs.queries.subjects import COUNTED, Counts
from durable_jobs.queries.visibility import seen_by, visible_keys

#: Runs in a panel.
MOST = 10
#: Live runs in a warning.
MAX_WARNED = 20


def may_view(site: AdminSite, request: HttpRequest) -> bool:
    """Return whether the viewer may see runs, also on a site without run pages."""
    if site.is_registered(Run):
        return Links(site, request).allowed(Run)
    return actor_of(request).may("durable_jobs.view_run")


def runs_url(links: Links, instance: Model) -> str | None:
    """Return the URL of the list of all runs of an object."""
    subject = f"{label_of(type(instance))}:{instance.pk}"
    return links.rows(Run, subject=subject)


def panel(site: AdminSite, request: HttpRequest, instance: Model) -> RunTable | None:
    """Return the newest runs of an object, or None if the viewer may not see runs."""
    if not may_view(site, request):
        return None
    links = Links(site, request)
    with seen_by(viewer_of(site, request)):
        found = subjects.newest(instance, MOST + 1)
    rows = [run_row(run, links) for run in found[:MOST]]
    return RunTable(
        rows=rows, more=runs_url(links, instance) if len(found) > MOST else None
    )


@dataclass(frozen=True)
class Column:
    """The runs column of one page. One query counts the runs of all rows."""

    model: type[Model]
    rows: Sequence[Any]
    links: Links

    @cached_property
    def counts(self) -> dict[str, Counts]:
        """Return the counts by row key."""
        keys = [str(row.pk) for row in self.rows]
        with seen_by(viewer_of(self.links.site, self.links.request)):
            return subjects.counts(self.model, keys)

    def cell(self, row: Model) -> SafeString | None:
        """Return the cell of one row, with a link to its runs."""
        found = self.counts.get(str(row.pk), Counts())
        if not found.total:
            return None
        parts = [
            format_html('<span class="durable-status durable-is-{}">{}</span>', kind, n)
            for kind, n in (
                ("running", _live(found)),
                ("failed", _failed(found)),
                ("completed", "" if found.live or found.failed else _ended(found)),
            )
            if n
        ]
        text = format_html_join(" ", "{}", ((part,) for part in parts))
        return self.links.anchor(runs_url(self.links, row), text)


def _live(found: Counts) -> str:
    return _("%(count)s live") % {"count": found.live} if found.live else ""


def _failed(found: Counts) -> str:
    return _("%(count)s failed") % {"count": found.failed} if found.failed else ""


def _ended(found: Counts) -> str:
    count = f"{COUNTED}+" if found.more else found.total
    return _("%(count)s ended") % {"count": count}


def warning(
    site: AdminSite, request: HttpRequest, objects: Sequence[Model]
) -> list[Any]:
    """Return the live runs of objects to be deleted, as a nested list of texts."""
    # Hidden runs still protect their object: they are counted, but not named.
    found = subjects.live(objects, MAX_WARNED + 1) if objects else []
    if not found:
        return []
    head = ngettext(
        "A live run is about the objects to delete. The run continues:",
        "Live runs are about the objects to delete. The runs continue:",
        len(found),
    )
    return [head, _named(site, request, objects, found)]


def _named(
    site: AdminSite,
    request: HttpRequest,
    objects: Sequence[Model],
    found: Sequence[tuple[str, Run]],
) -> list[Any]:
    """Return live runs with their objects, as links that the viewer may open."""
    if not may_view(site, request):
        return [_("Runs that you may not see.")]
    links = Links(site, request)
    with seen_by(viewer_of(site, request)):
        seen = visible_keys(run.pk for _key, run in found)
    hidden = [_("Runs that you may not see.")] if len(seen) < len(found) else []
    found = [(key, run) for key, run in found if run.pk in seen]
    names = descriptions_of(objects)
    known = {str(one.pk): name for one, name in zip(objects, names, strict=True)}
    lines: list[Any] = [
        format_html(
            "{}: {} {} {}{}",
            known[key],
            run.function,
            links.anchor(links.page(Run, run.pk), short(run.pk)),
            badge(run),
            _cancel(site, request, run),
        )
        for key, run in found[:MAX_WARNED]
    ]
    more = [_("and more")] if len(found) > MAX_WARNED else []
    return [*lines, *more, *hidden]


def _cancel(site: AdminSite, request: HttpRequest, run: Run) -> SafeString:
    """Return a link to cancel a run, or "" without permission."""
    if not site.is_registered(Run) or not may(actor_of(request), "cancel", run):
        return SafeString("")
    address = actions.url_of(site.get_model_admin(Run), run, "cancel")
    return format_html(' <a href="{}">{}</a>', address, _("Cancel"))
