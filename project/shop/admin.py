"""The shop in the admin."""

from __future__ import annotations

from typing import Any

from django.contrib import admin

from durable_jobs.admin import DurableRunsMixin
from project.shop.models import Airport, ImportSummary, Order, Tenant, Upload


@admin.register(Tenant)
class TenantAdmin(admin.ModelAdmin):
    """Tenants by name."""

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
    """Uploaded files; one that is added is imported."""

    list_display = ("__str__", "uploaded_at")

    def save_model(self, request: Any, obj: Upload, form: Any, change: bool) -> None:
        """Save, and start the import in the same transaction."""
        super().save_model(request, obj, form, change)
        if not change:
            obj.announce()


@admin.register(Airport)
class AirportAdmin(admin.ModelAdmin):
    """The airports that the demo imported."""

    list_display = ("icao", "iata", "name", "city", "country")
    search_fields = ("icao", "iata", "name", "city")
    show_full_result_count = False


@admin.register(ImportSummary)
class ImportSummaryAdmin(admin.ModelAdmin):
    """What the imports did."""

    list_display = ("run_id", "upload", "rows", "rejected", "finished_at")
