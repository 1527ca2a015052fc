"""Schedules: the next times of the cron triggers."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.display import away
from durable_jobs.admin.links import Links
from durable_jobs.models import Run, Schedule


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    """Schedules, the next one first."""

    list_display_links = None
    facts = ("function", "cron", "tz", "next", "fired")
    ordering = ("next_at", "id")

    def get_list_display(self, request: HttpRequest) -> Any:
        """Return the columns; the function leads to its runs."""
        links = Links(self.admin_site, request)

        @admin.display(description=_("function"))
        def function(schedule: Schedule) -> Any:
            name = schedule.function
            return links.anchor(links.rows(Run, function=name), name)

        return [function, "cron", "tz", "next", "fired"]

    @admin.display(description=_("next"))
    def next(self, schedule: Schedule) -> Any:
        """Return when it fires next."""
        return away(schedule.next_at)

    @admin.display(description=_("last fired"))
    def fired(self, schedule: Schedule) -> Any:
        """Return when it fired last."""
        return away(schedule.fired_at)
