"""Approvals: the forms that runs wait for."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _

from durable_jobs.admin.pages import page


def view(admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the page."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    return page(
        admin.admin_site,
        request,
        "page.html",
        title=_("Approvals"),
        current="approvals",
    )
