"""The list of runs, with filters in the URL."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import SimpleListFilter
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs.admin import saved_views
from durable_jobs.admin.filters import PERIODS, Choices, FunctionFilter
from durable_jobs.admin.pages import address, page
from durable_jobs.admin.paging import BoundedChangeList
from durable_jobs.admin.runs import filter_form
from durable_jobs.statuses import RunStatus


class FilterLinks(SimpleListFilter):
    """Links for one filter. ``RunChangeList`` applies the filters itself."""

    def queryset(self, request: Any, queryset: Any) -> Any:
        """Return the rows unchanged."""
        return queryset


class StatusLinks(FilterLinks):
    """Links for the status filter."""

    title = gettext_lazy("status")
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        return RunStatus.choices


class PeriodLinks(FilterLinks):
    """Links for the period filter."""

    title = gettext_lazy("time")
    parameter_name = "period"

    def lookups(self, request: Any, model_admin: Any) -> Choices:
        return PERIODS.items()


class FunctionLinks(FilterLinks, FunctionFilter):
    """Links for the function filter."""


class RunChangeList(BoundedChangeList):
    """The run list with its filters, and the filters that no index supports."""

    filter_form: filter_form.Conditions
    older_search: str | None = None

    def get_filters_params(self, params: Any = None) -> Any:
        """Return the parameters of the links beside the list."""
        found = super().get_filters_params(params)
        filters: Any = self.list_filter
        names = {item.parameter_name for item in filters}
        return {name: value for name, value in found.items() if name in names}

    def get_queryset(self, request: Any, exclude_parameters: Any = None) -> Any:
        """Return the runs that match the filters in the URL."""
        rows = super().get_queryset(request, exclude_parameters)
        self.conditions = filter_form.read(request)
        chosen = filter_form.requested_filter(request)
        self.has_active_filters = bool(chosen)
        self.clear_all_filters_qs = "?"
        plain = chosen.without(filter_form.SEARCH)  # applied by get_search_results
        search_start = plain.search_start(rows)
        if search_start is not None:
            after = {**filter_form.params(request), "before": [_after(search_start)]}
            self.older_search = f"?{urlencode(sorted(after.items()), doseq=True)}"
        return plain.narrow(rows, search_start or uuid.UUID(int=0))


def _after(key: uuid.UUID) -> str:
    """Return the next larger id."""
    return str(uuid.UUID(int=key.int + 1))


def view(
    run_admin: Any, request: HttpRequest, context: dict[str, Any]
) -> HttpResponse | dict[str, Any]:
    """Return extra template context, or a redirect or error page instead."""
    if filter_form.has_blanks(request) and request.method == "GET":
        others = {name: found for name, found in request.GET.lists() if any(found)}
        kept = {name: [one for one in found if one] for name, found in others.items()}
        query = urlencode(kept, doseq=True)
        return HttpResponseRedirect(f"{request.path}?{query}" if query else ".")
    found = filter_form.read(request)
    if found.error is not None:
        return page(
            run_admin.admin_site,
            request,
            "invalid_filter.html",
            title=_("Invalid filter"),
            current=run_admin.tab,
            status=400,
            conditions=found,
            list_url=request.path,
        )
    site, query = run_admin.admin_site, found.query(without="")
    export = f"{address(site, 'export')}?{query}{'&' if query else ''}format="
    return {
        **context,
        "export_csv": f"{export}csv",
        "export_json": f"{export}json",
        "saved_views": saved_views.links(request, found),
        "saved_views_url": address(site, "saved_views"),
        "saved_query": found.query(),
    }
