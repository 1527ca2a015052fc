"""Runs: the list, and the page of one with its timeline."""

from __future__ import annotations

import uuid
from contextlib import suppress
from functools import partial
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import path
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from durable_jobs import clock
from durable_jobs.admin import approvals, functions, overview, traffic
from durable_jobs.admin.display import away, badge, length, moment, short, took
from durable_jobs.admin.filters import (
    ChoiceFilter,
    FunctionFilter,
    GivenFilter,
    OlderFilter,
    QueuedFilter,
    identity,
)
from durable_jobs.admin.pages import PREFIX, View
from durable_jobs.admin.payloads import error, payload
from durable_jobs.admin.related import RUN_PAYLOADS
from durable_jobs.admin.run_pages import RunPages
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus

#: The pages that are no model's own; each is called with this admin and the request.
PAGES: dict[str, View] = {
    "overview": overview.view,
    "functions": functions.view,
    "traffic": traffic.view,
    "approvals": approvals.view,
}
#: How the names of the project's own events begin.
OWN = "durable/"


class StatusFilter(ChoiceFilter):
    """Runs by their status."""

    title = _("status")
    parameter_name = "status"

    def choices_of_column(self) -> Any:
        """Return all statuses."""
        return RunStatus.choices

    def queryset(self, request: Any, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the runs in the status; those that run are found by their leases."""
        rows = super().queryset(request, queryset)
        if self.value() == RunStatus.RUNNING:
            return rows.filter(lease_token__isnull=False)
        return rows


class ByEvent(GivenFilter):
    """Runs that an event started."""

    title = _("event")
    parameter_name = "event"

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the runs of the event."""
        return queryset.filter(event_id=value)


class ByParent(GivenFilter):
    """Runs that another run started."""

    title = _("parent")
    parameter_name = "parent"

    def narrow(self, queryset: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the children of the run."""
        return queryset.filter(parent_id=identity(value))


@admin.register(Run)
class RunAdmin(RunPages):
    """Runs, the newest first."""

    payloads = RUN_PAYLOADS

    list_display = (
        "short_id",
        "function",
        "run_status",
        "trigger_shown",
        "queued",
        "started",
        "ended",
        "duration",
    )
    list_filter = (
        StatusFilter,
        QueuedFilter,
        FunctionFilter,
        ByEvent,
        ByParent,
        OlderFilter,
    )
    ordering = ("-id",)
    search_fields = ("=id",)
    search_help_text = _("The whole id of a run or of an event, or a whole key.")

    facts = (
        "reason",
        "due",
        "queued",
        "started",
        "ended",
        "duration",
        "trigger",
        "key",
        "queue",
        "version",
        "worker",
        "crashes",
    )
    bodies = (
        (_("Error"), "error"),
        (_("Data"), "data"),
        (_("Output"), "output"),
    )

    def get_urls(self) -> list[Any]:
        """Return also the addresses of the pages that are no model's own."""
        own = [
            path(
                f"{name}/",
                self.admin_site.admin_view(partial(view, self)),
                name=f"{PREFIX}{name}",
            )
            for name, view in PAGES.items()
        ]
        return [*own, *super().get_urls()]

    def older_than(self, row: Run) -> dict[str, Any] | None:
        """Return the filter for the runs that follow one in the list."""
        return {"before": row.pk}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find runs by a whole id or key: by equality, which indexes answer."""
        term = search_term.strip()
        if not term:
            return queryset, False
        wanted = Q(event_id=term) | Q(key=term)
        with suppress(ValueError):  # no run's id: it may be an event's, or a key
            wanted |= Q(pk=uuid.UUID(term))
        return queryset.filter(wanted), False

    @admin.display(description=_("run"))
    def short_id(self, run: Run) -> Any:
        """Return the end of the id."""
        return short(run.pk)

    @admin.display(description=_("status"))
    def run_status(self, run: Run) -> Any:
        """Return the status, coloured."""
        return badge(run)

    @admin.display(description=_("trigger"))
    def trigger_shown(self, run: Run) -> Any:
        """Return what started it; the project's own events without their prefix."""
        name = run.trigger
        if not name.startswith(OWN):
            return name
        return format_html(
            '<span class="durable-quiet" title="{}">{}</span>',
            name,
            name.removeprefix(OWN),
        )

    @admin.display(description=_("queued"))
    def queued(self, run: Run) -> Any:
        """Return when the run was queued."""
        return moment(run.queued_at)

    @admin.display(description=_("started"))
    def started(self, run: Run) -> Any:
        """Return when it started, or is to start."""
        return moment(run.started_at, run.queued_at) or self.due(run)

    @admin.display(description=_("due"))
    def due(self, run: Run) -> Any:
        """Return when it may go on, if it has to wait in its queue."""
        later = run.status == RunStatus.QUEUED and run.due_at > clock.now()
        return away(run.due_at) if later else None

    @admin.display(description=_("ended"))
    def ended(self, run: Run) -> Any:
        """Return when it ended."""
        return moment(run.ended_at, run.queued_at)

    @admin.display(description=_("duration"))
    def duration(self, run: Run) -> Any:
        """Return how long it took, or has taken until now."""
        return length(took(run))

    @admin.display(description=_("error"))
    def error_shown(self, run: Any) -> Any:
        """Return what it failed of."""
        return error(run.error_text)

    @admin.display(description=_("data"))
    def data_shown(self, run: Any) -> Any:
        """Return what it was started with."""
        return payload(run.data_text, run.references)

    @admin.display(description=_("output"))
    def output_shown(self, run: Any) -> Any:
        """Return its result."""
        return payload(run.output_text, run.references)
