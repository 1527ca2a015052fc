"""The list of schedules: declared crons and schedules of users."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.display import length, moment, relative_time
from durable_jobs.admin.filters import FunctionFilter, plain
from durable_jobs.admin.links import Links
from durable_jobs.admin.payloads import payload
from durable_jobs.admin.schedules.views import SchedulePages
from durable_jobs.definitions.cron import expression
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import Run, Schedule


@admin.register(Schedule)
class ScheduleAdmin(SchedulePages):
    """Schedules, ordered by their next occurrence."""

    payloads = ("data", "queued_occurrences")

    list_display_links = None
    list_filter = (FunctionFilter,)
    ordering = ("due_at", "id")
    search_fields = ("owner_pk",)
    search_help_text = _("Owner as app.model and key, for example auth.user 7.")

    summary_fields = (
        "state", "function", "name", "cron", "description", "tz", "owner_display",
        "jitter_display", "catch_up", "overlap", "next_due", "last_fired", "queued",
        "declared", "created",
    )  # fmt: skip
    payload_fields = ((_("Data"), "data"),)

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns. The function links to its runs, the name to its page."""
        links = Links(self.admin_site, request)

        @admin.display(description=_("function"))
        def function(schedule: Schedule) -> Any:
            name = schedule.function
            return links.anchor(links.rows(Run, function=name), name)

        @admin.display(description=_("schedule"))
        def name(schedule: Schedule) -> Any:
            label = schedule.name or f"#{schedule.pk}"
            return links.anchor(links.page(Schedule, schedule.pk), label)

        return [
            name, function, "state", "next_due", "last_fired", "description", "cron",
            "tz", "owner_display",
        ]  # fmt: skip

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return the schedules of an owner, found by index."""
        label, _space, key = search_term.strip().partition(" ")
        if not label:
            return queryset, False
        return queryset.filter(owner_model=plain(label), owner_pk=plain(key)), False

    @admin.display(description=_("state"))
    def state(self, schedule: Schedule) -> Any:
        """Return whether the schedule is active, and why not."""
        if schedule.is_paused:
            reason = f": {schedule.reason}" if schedule.reason else ""
            return format_html("{}{}", _("paused"), reason)
        if not schedule.in_code:
            return _("not deployed")
        return _("active")

    @admin.display(description=_("owner"))
    def owner_display(self, schedule: Schedule) -> str | None:
        """Return the owner's model and key, without reading the owner's row."""
        if not schedule.owner_model:
            return None
        return f"{schedule.owner_model} {schedule.owner_pk}"

    @admin.display(description=_("in words"))
    def description(self, schedule: Schedule) -> str | None:
        """Return the cron expression in words."""
        try:
            return expression(schedule.cron, schedule.tz).describe()
        except ConfigurationError:
            return None

    @admin.display(description=_("next"))
    def next_due(self, schedule: Schedule) -> Any:
        return relative_time(schedule.due_at)

    @admin.display(description=_("last fired"))
    def last_fired(self, schedule: Schedule) -> Any:
        return relative_time(schedule.last_fired_at)

    @admin.display(description=_("jitter"))
    def jitter_display(self, schedule: Schedule) -> str | None:
        """Return the duration over which starts are spread."""
        return length(schedule.jitter)

    @admin.display(description=_("queued occurrences"))
    def queued(self, schedule: Schedule) -> int | None:
        """Return how many occurrences wait for the previous run to end."""
        return len(schedule.queued_occurrences) or None

    @admin.display(description=_("data"))
    def data_display(self, schedule: Any) -> Any:
        return payload(schedule.data_text, _("Data"), schedule.references)

    @admin.display(description=_("created"))
    def created(self, schedule: Schedule) -> Any:
        return moment(schedule.created_at)
