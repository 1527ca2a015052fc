"""URLs of admin pages that the viewer may open."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.utils import quote
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from durable_jobs.models import Wait
from durable_jobs.project_code import allowed, may_view


class Links:
    """Build URLs into one admin site for one viewer."""

    def __init__(self, site: AdminSite, request: HttpRequest) -> None:
        self._site = self.site = site
        self.request = request
        self._allowed: dict[type[Model], bool] = {}

    def allowed(self, model: type[Model]) -> bool:
        """Return whether the viewer may open the pages of a model."""
        if model not in self._allowed:
            self._allowed[model] = self._site.is_registered(model) and may_view(
                self._site.get_model_admin(model), self.request
            )
        return self._allowed[model]

    def admin_of(self, model: type[Model]) -> ModelAdmin:
        """Return the model's registered admin."""
        return self._site.get_model_admin(model)

    def joined(self, model: type[Model], rows: QuerySet[Any]) -> QuerySet[Any]:
        """Return rows with the relations that the model's change list selects."""
        names = self.admin_of(model).get_list_select_related(self.request)
        return rows if isinstance(names, bool) else rows.select_related(*names)

    def page(self, model: type[Model], key: Any) -> str | None:
        """Return the URL of a row's page, or None without permission."""
        return self._address(model, "change", quote(str(key)))

    def rows(self, model: type[Model], **filters: Any) -> str | None:
        """Return the URL of a filtered list, or None without permission."""
        address = self._address(model, "changelist")
        query = urlencode(filters, doseq=True)
        return f"{address}?{query}" if address and filters else address

    def approval(self, wait: Wait) -> str | None:
        """Return the URL of an approval's form, or None without permission."""
        user: Any = self.request.user
        may = wait.step and (
            allowed(user, wait.name) or allowed(user, wait.name, wait.run)
        )
        if not may:
            return None
        name = "admin:durable_jobs_approval"
        return reverse(name, args=[wait.run_id, wait.step], current_app=self._site.name)

    def anchor(self, address: str | None, label: Any) -> SafeString:
        """Return the label, as a link if ``address`` is not None."""
        if address is None:
            return format_html("{}", label)
        return format_html('<a href="{}">{}</a>', address, label)

    def _address(self, model: type[Model], view: str, *args: str) -> str | None:
        if not self.allowed(model):
            return None
        meta = model._meta
        name = f"admin:{meta.app_label}_{meta.model_name}_{view}"
        return reverse(name, args=args, current_app=self._site.name)
