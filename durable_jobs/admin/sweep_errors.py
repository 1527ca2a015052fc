"""The admin of sweep errors: items that sweeps, claims and the router will retry."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.display import moment
from durable_jobs.models import SweepError


@admin.register(SweepError)
class SweepErrorAdmin(ReadOnlyAdmin):
    """Sweep errors, newest first."""

    list_display = ("item", "kind", "count", "last", "next_try")
    summary_fields = ("kind", "item", "run_id", "count", "last", "next_try")
    payload_fields = ((_("Error"), "message"),)
    payloads = ("message",)
    masks = {"message": "hidden"}  # noqa: RUF012  # as the base class declares it
    ordering = ("-until", "-id")

    @admin.display(description=_("last failure"))
    def last(self, error: SweepError) -> Any:
        return moment(error.last_at)

    @admin.display(description=_("next try"))
    def next_try(self, error: SweepError) -> Any:
        return moment(error.until)

    @admin.display(description="")
    def message_display(self, error: Any) -> str:
        return str(error.message_text)
