"""The admin of workers and ticks, with their last heartbeat."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.display import moment, relative_time
from durable_jobs.models import Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    """Workers, latest heartbeat first."""

    list_display = ("name", "kind", "heartbeat", "started")
    summary_fields = ("name", "kind", "heartbeat", "started")
    ordering = ("-seen_at", "name")

    @admin.display(description=_("last heartbeat"))
    def heartbeat(self, worker: Worker) -> Any:
        return relative_time(worker.seen_at)

    @admin.display(description=_("started"))
    def started(self, worker: Worker) -> Any:
        return moment(worker.started_at)
