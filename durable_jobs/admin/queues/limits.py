"""The admin of limits, which operators may change, and of pauses."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.display import relative_time
from durable_jobs.admin.pages import actor_of, viewer_of
from durable_jobs.control import audit, limits
from durable_jobs.flow_control import keys
from durable_jobs.models import Limit, Pause, Slot
from durable_jobs.queries.visibility import of_runs, seen_by

#: Flow controls whose limit is always one run.
ONE_LIVE_RUN = {keys.ORDERING, keys.SINGLETON}


class LimitForm(forms.ModelForm):
    """The override of a limit."""

    class Meta:
        model = Limit
        fields = ("override",)
        labels = {"override": _("limit")}  # noqa: RUF012  # as Django declares it
        help_texts = {  # noqa: RUF012  # as Django declares it
            "override": _(
                "Replaces the declared limit, unless empty. 0 blocks all. "
                "A lower limit applies as running runs finish; a higher one "
                "applies now."
            )
        }


@admin.register(Limit)
class LimitAdmin(ReadOnlyAdmin):
    """Limits by key, last used first."""

    change_form_template = "admin/change_form.html"
    form = LimitForm  # type: ignore[assignment]  # the base class declares a read-only form
    list_display = ("control", "function", "key", "override", "slots_in_use", "error")
    ordering = ("-used_at", "-id")
    restricted_fields = ("key", "error")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return whether the viewer may set this limit, if it is a number."""
        if obj is not None and obj.control in ONE_LIVE_RUN:
            return False
        return actor_of(request).may("durable_jobs.change_limit")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the limits with the number of their slots in use."""
        every = Slot.objects.filter(limit=OuterRef("pk"), released_at__isnull=True)
        with seen_by(viewer_of(self.admin_site, request)):
            used = of_runs(every)
        # The subquery runs for the rows of one page only.
        counted = used.order_by().values("limit").annotate(count=Count("pk"))
        rows: QuerySet[Any] = super().get_queryset(request).exclude(control="lock")
        slot_count = Coalesce(Subquery(counted.values("count")), 0)
        annotated: QuerySet[Any] = rows.annotate(slot_count=slot_count)
        return annotated

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        names = ["control", "function", "key", "slots_in_use", "override"]
        return [(None, {"fields": self.visible_fields(request, names)})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return ["control", "function", "key", "slots_in_use"]

    def save_model(
        self, request: HttpRequest, obj: Limit, form: Any, change: bool
    ) -> None:
        """Set the limit, and promote the runs that now fit."""
        limits.set_limit(obj, form.cleaned_data["override"])

    def log_change(self, request: HttpRequest, obj: Limit, message: Any) -> Any:
        """Record the change in the audit log that all actions use."""
        limit = _("the declared one") if obj.override is None else obj.override
        audit.write(actor_of(request), obj, f"Limit set to {limit}.")

    @admin.display(description=_("slots in use"))
    def slots_in_use(self, limit_row: Any) -> Any:
        return limit_row.slot_count


@admin.register(Pause)
class PauseAdmin(ReadOnlyAdmin):
    """Pauses, newest first."""

    list_display = ("kind", "name", "key", "skip", "reason", "paused")
    list_display_links = ("name",)
    summary_fields = ("kind", "name", "key", "skip", "reason", "paused")
    ordering = ("-paused_at", "id")
    restricted_fields = ("key",)

    @admin.display(description=_("paused"))
    def paused(self, pause: Pause) -> Any:
        return relative_time(pause.paused_at)
