"""Workers: who executes and who ticks, and when they were last seen."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.display import moment, relative_time
from durable_jobs.models import Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    """Workers, the last seen first."""

    list_display = ("name", "kind", "seen", "started")
    list_display_links = None
    summary_fields = ("name", "kind", "seen", "started")
    ordering = ("-seen_at", "name")

    @admin.display(description=_("last seen"))
    def seen(self, worker: Worker) -> Any:
        """Return when it was last seen."""
        return relative_time(worker.seen_at)

    @admin.display(description=_("started"))
    def started(self, worker: Worker) -> Any:
        """Return when it came up."""
        return moment(worker.started_at)
