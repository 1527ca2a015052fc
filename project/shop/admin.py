"""The admin of the shop."""

from __future__ import annotations

from typing import Any

from django.contrib import admin

from durable_jobs.admin import DurableRunsMixin
from project.shop.models import Airport, ImportSummary, Order, Tenant, Upload


@admin.register(Tenant)
class TenantAdmin(admin.ModelAdmin):
    """Tenants, searchable by name."""

    search_fields = ("name",)


@admin.register(Order)
class OrderAdmin(DurableRunsMixin, admin.ModelAdmin):
    """Orders, newest first."""

    list_display = (
        "__str__",
        "tenant",
        "status",
        "total",
        "created_at",
        "durable_runs",
    )
    list_filter = ("status",)
    list_select_related = ("tenant",)
    ordering = ("-pk",)


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin):
    """Uploaded files. Adding a file starts its import."""

    list_display = ("__str__", "uploaded_at")

    def save_model(self, request: Any, obj: Upload, form: Any, change: bool) -> None:
        """Save a file and start the import of a new file in the same transaction."""
        super().save_model(request, obj, form, change)
        if not change:
            obj.announce()


@admin.register(Airport)
class AirportAdmin(admin.ModelAdmin):
    """The imported airports."""

    list_display = ("icao", "iata", "name", "city", "country")
    search_fields = ("icao", "iata", "name", "city")
    show_full_result_count = False


@admin.register(ImportSummary)
class ImportSummaryAdmin(admin.ModelAdmin):
    """The results of the imports."""

    list_display = ("run_id", "upload", "rows", "rejected", "finished_at")
