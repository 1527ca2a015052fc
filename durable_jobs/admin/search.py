"""The search page: one hit is opened, several are listed by what they match."""

from __future__ import annotations

from typing import Any

from django.contrib.admin.utils import quote
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin.display import moment, short
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import address, page
from durable_jobs.admin.related import RunTable, run_row
from durable_jobs.models import Event, Run
from durable_jobs.queries import search
from durable_jobs.queries.run_filter import MAX_SEARCHED
from durable_jobs.queries.search import Hits

#: The heading of each kind of match.
TITLES: dict[str, str | Promise] = {
    search.RUN_ID: gettext_lazy("Run id"),
    search.EVENT_ID: gettext_lazy("Event id"),
    search.EVENT: gettext_lazy("Runs of the event"),
    search.KEY: gettext_lazy("Runs with the key"),
    search.SUBJECT: gettext_lazy("Runs about the object"),
    search.FUNCTION: gettext_lazy("Functions"),
    search.SHORT_ID: gettext_lazy("Short id of a run"),
}


def view(admin: Any, request: HttpRequest) -> HttpResponse:
    """Open the only hit, or list the hits."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    links = Links(admin.admin_site, request)
    term = request.GET.get("q", "").strip()
    found = search.search(term, events=links.allowed(Event))
    rows = [row for hits in found for row in hits.rows]
    if len(rows) == 1:
        return HttpResponseRedirect(_url(rows[0], links))
    return page(
        admin.admin_site,
        request,
        "search.html",
        title=_("Search"),
        current="search",
        search_term=term,
        searched=f"{MAX_SEARCHED:,}",
        sections=[_section(hits, term, links) for hits in found],
    )


def _url(row: Any, links: Links) -> str:
    if isinstance(row, Run | Event):
        return links.page(type(row), row.pk) or ""
    return address(links.site, "function", quote(row.id))


def _section(hits: Hits, term: str, links: Links) -> dict[str, Any]:
    """Return the hits of one kind, with a link to all of them if there may be more."""
    show = {search.FUNCTION: _functions, search.EVENT_ID: _events}.get(hits.kind, _runs)
    return {"title": TITLES[hits.kind], **show(hits, term, links)}


def _functions(hits: Hits, term: str, links: Links) -> dict[str, Any]:
    names = [
        (links.anchor(_url(function, links), function.name), function.id)
        for function in hits.rows
    ]
    every = f"{address(links.site, 'functions')}?{urlencode({'q': term})}"
    return {"names": names, "more": every if hits.full else None}


def _events(hits: Hits, term: str, links: Links) -> dict[str, Any]:
    events = [
        (
            links.anchor(_url(event, links), event.name),
            short(event.pk),
            moment(event.ts),
        )
        for event in hits.rows
    ]
    return {"events": events}


def _runs(hits: Hits, term: str, links: Links) -> dict[str, Any]:
    rows = [run_row(run, links) for run in hits.rows]
    listed = hits.full and hits.condition
    more = links.rows(Run, **{hits.condition: term}) if listed else None
    return {"runs": RunTable(rows=rows, more=more)}
