"""The frame of all pages: the tabs above them, and pages that are no model's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.apps import apps
from django.contrib.admin import AdminSite
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin import inbox
from durable_jobs.admin.links import Links
from durable_jobs.control.acting import Actor
from durable_jobs.models import Event, Run, Schedule

#: ``admin:durable_jobs_<name>`` is the address of a page that is no model's.
PREFIX = "durable_jobs_"

View = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Tab:
    """A page that the bar leads to: for those who may view the model.

    ``besides`` tells who else is led there.
    """

    name: str
    label: str | Promise
    model: type[Model]
    besides: Callable[[Actor], bool] = lambda actor: False


TABS = (
    Tab("overview", _("Overview"), Run),
    Tab("run_changelist", _("Runs"), Run),
    Tab("event_changelist", _("Events"), Event),
    Tab("functions", _("Functions"), Run),
    Tab("traffic", _("Queues and limits"), Run),
    Tab("schedule_changelist", _("Schedules"), Schedule),
    Tab("approvals", _("Approvals"), Run, inbox.anything_for),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A tab as one viewer sees it."""

    label: str | Promise
    url: str
    current: bool


def frame(site: AdminSite, request: HttpRequest, current: str = "") -> dict[str, Any]:
    """Return what the frame of a page shows: its tabs, and whether it may be live."""
    links = Links(site, request)
    return {
        "tabs": [
            Shown(
                label=tab.label,
                url=address(site, tab.name),
                current=tab.name == current,
            )
            for tab in TABS
            if links.allowed(tab.model) or tab.besides(actor(request))
        ],
        "live": apps.is_installed("django_htmx"),
    }


def address(site: AdminSite, name: str, *args: Any) -> str:
    """Return the address of a page of ours in an admin site."""
    return reverse(f"admin:{PREFIX}{name}", args=args, current_app=site.name)


def paths(admin: Any, routes: Mapping[str, tuple[str, View]]) -> list[URLPattern]:
    """Return the addresses of pages by name, for the ``get_urls`` of an admin.

    Each route has the view that answers it, which is called with the admin and the
    request, for those who may log in.
    """
    return [
        path(
            route,
            admin.admin_site.admin_view(partial(view, admin)),
            name=f"{PREFIX}{name}",
        )
        for name, (route, view) in routes.items()
    ]


def page(
    site: AdminSite,
    request: HttpRequest,
    template: str,
    *,
    title: Any,
    current: str = "",
    status: int = 200,
    **context: Any,
) -> TemplateResponse:
    """Return a page in the admin's look, below the tabs.

    ``template`` extends ``admin/durable_jobs/page.html``; its name is that below
    ``admin/durable_jobs/``.
    """
    known = {**site.each_context(request), **frame(site, request, current)}
    known |= {"title": title, "opts": Run._meta, **context}
    request.current_app = site.name
    return TemplateResponse(
        request, f"admin/durable_jobs/{template}", known, status=status
    )


def actor(request: HttpRequest) -> Actor:
    """Return who acts by a request."""
    return Actor(request.user)
