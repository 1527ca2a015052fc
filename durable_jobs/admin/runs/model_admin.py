"""The admin of runs, and the URLs of all pages that belong to no model."""

from __future__ import annotations

from functools import partialmethod
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from durable_jobs import clock
from durable_jobs.admin import overview, saved_views, search
from durable_jobs.admin.approvals import inbox
from durable_jobs.admin.display import (
    badge,
    elapsed,
    length,
    moment,
    relative_time,
    short,
)
from durable_jobs.admin.functions import views as function_views
from durable_jobs.admin.pages import View, actor_of, paths
from durable_jobs.admin.payloads import payload
from durable_jobs.admin.queues import views as queue_views
from durable_jobs.admin.related import RUN_PAYLOADS
from durable_jobs.admin.runs import bulk, change_list, export
from durable_jobs.admin.runs.change_list import (
    FunctionLinks,
    PeriodLinks,
    RunChangeList,
    StatusLinks,
)
from durable_jobs.admin.runs.views import RunPages
from durable_jobs.control.run_actions import ACTIONS
from durable_jobs.models import Run
from durable_jobs.queries.run_filter import RunFilter
from durable_jobs.statuses import RunStatus

#: Pages that belong to no model. Each view gets this admin and the request.
PAGES: dict[str, View] = {
    "overview": overview.view,
    "search": search.view,
    "functions": function_views.view,
    "queues": queue_views.view,
    "approvals": inbox.view,
    "bulk": bulk.view,
    "export": export.view,
    "saved_views": saved_views.view,
}
#: Pages below those, by URL name: the route and the view.
BELOW: dict[str, tuple[str, View]] = {
    "approval": ("approvals/<uuid:run_id>/<slug:key>/", inbox.decide),
    **function_views.BELOW,
    **queue_views.BELOW,
}
#: The prefix of the package's own events.
OWN_EVENT_PREFIX = "durable/"


@admin.register(Run)
class RunAdmin(RunPages):
    """Runs, newest first."""

    payloads = RUN_PAYLOADS

    list_display = (
        "short_id",
        "function",
        "run_status",
        "trigger_display",
        "queued",
        "started",
        "duration",
    )
    list_filter = (StatusLinks, PeriodLinks, FunctionLinks)
    actions = bulk.BULK_ACTIONS
    ordering = ("-id",)
    search_fields = ("=id",)

    summary_fields = (
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
        "worker_losses",
    )
    payload_fields = (
        (_("Data"), "data"),
        (_("Output"), "output"),
    )

    def get_urls(self) -> list[Any]:
        routes = {name: (f"{name}/", view) for name, view in PAGES.items()} | BELOW
        return [*paths(self, routes), *super().get_urls()]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return RunChangeList

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show the list, or an error page for invalid filters."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        found = change_list.view(self, request, extra_context or {})
        if isinstance(found, dict):
            return super().changelist_view(request, found)
        return found

    def response_action(
        self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Run the action, unless the posted selection is invalid."""
        if not bulk.selectable(request):
            return None
        return super().response_action(request, queryset, *args, **kwargs)

    def _may(self, action: str, request: HttpRequest) -> bool:
        return actor_of(request).may(ACTIONS[action].permission)

    has_cancel_permission = partialmethod(_may, "cancel")
    has_pause_permission = partialmethod(_may, "pause")
    has_resume_permission = partialmethod(_may, "resume")
    has_retry_permission = partialmethod(_may, "retry")
    has_wake_permission = partialmethod(_may, "wake")
    has_redrive_permission = partialmethod(_may, "redrive")
    has_rerun_permission = partialmethod(_may, "rerun")

    def older_than(self, row: Run) -> dict[str, Any] | None:
        return {"before": row.pk}

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return runs with exactly this id, event id or key, found by index."""
        term = search_term.strip()
        found = RunFilter.parse({"q": term}) if term else RunFilter({})
        return found.narrow(queryset), False

    @admin.display(description=_("run"))
    def short_id(self, run: Run) -> Any:
        return short(run.pk)

    @admin.display(description=_("status"))
    def run_status(self, run: Run) -> Any:
        return badge(run)

    @admin.display(description=_("trigger"))
    def trigger_display(self, run: Run) -> Any:
        """Return the trigger. The package's own events lose their prefix."""
        name = run.trigger
        if not name.startswith(OWN_EVENT_PREFIX):
            return name
        return format_html(
            '<span class="durable-quiet" title="{}">{}</span>',
            name,
            name.removeprefix(OWN_EVENT_PREFIX),
        )

    @admin.display(description=_("worker losses"))
    def worker_losses(self, run: Run) -> int:
        """Return how many times in a row a worker died while it executed the run."""
        return run.worker_losses

    @admin.display(description=_("queued"))
    def queued(self, run: Run) -> Any:
        return moment(run.queued_at)

    @admin.display(description=_("started"))
    def started(self, run: Run) -> Any:
        """Return when the run started, or when it is due."""
        return moment(run.started_at, run.queued_at) or self.due(run)

    @admin.display(description=_("due"))
    def due(self, run: Run) -> Any:
        """Return when a queued run may start, if that is in the future."""
        later = run.status == RunStatus.QUEUED and run.due_at > clock.now()
        return relative_time(run.due_at) if later else None

    @admin.display(description=_("ended"))
    def ended(self, run: Run) -> Any:
        return moment(run.ended_at, run.queued_at)

    @admin.display(description=_("duration"))
    def duration(self, run: Run) -> Any:
        """Return the time in execution; for a redriven run also the whole time."""
        took = elapsed(run)
        if took is None or not run.stopped_for:
            return length(took)
        whole = _("%(length)s elapsed") % {"length": length(took + run.stopped_for)}
        quiet = format_html('<span class="durable-quiet">· {}</span>', whole)
        return format_html("{} {}", length(took), quiet)

    @admin.display(description=_("data"))
    def data_display(self, run: Any) -> Any:
        return payload(run.data_text, _("Data"), run.references)

    @admin.display(description=_("output"))
    def output_display(self, run: Any) -> Any:
        return payload(run.output_text, _("Output"), run.references)
