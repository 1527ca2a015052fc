"""Shared parts of all pages: tabs, URLs of pages without a model, and the viewer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

from django.apps import apps
from django.contrib.admin import AdminSite
from django.db.models import Model
from django.http import HttpRequest
from django.template.response import SimpleTemplateResponse, TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from durable_jobs.admin.links import Links
from durable_jobs.control import inbox
from durable_jobs.control.actor import Actor
from durable_jobs.models import Event, Run, Schedule
from durable_jobs.queries.visibility import ADMIN, Viewer, runs, seen_by

#: URL names are ``admin:durable_jobs_<name>``.
PREFIX = "durable_jobs_"

View = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Tab:
    """A tab, for users who may view the model or for whom ``also_for`` is true."""

    name: str
    label: str | Promise
    model: type[Model]
    also_for: Callable[[Actor], bool] = lambda actor: False


TABS = (
    Tab("overview", _("Overview"), Run),
    Tab("run_changelist", _("Runs"), Run),
    Tab("event_changelist", _("Events"), Event),
    Tab("functions", _("Functions"), Run),
    Tab("queues", _("Queues and limits"), Run),
    Tab("schedule_changelist", _("Schedules"), Schedule),
    Tab("approvals", _("Approvals"), Run, inbox.anything_for),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLink:
    """A tab as a link."""

    label: str | Promise
    url: str
    current: bool


def base_context(
    site: AdminSite, request: HttpRequest, current: str = ""
) -> dict[str, Any]:
    """Return the template context of all pages: tabs, search, and htmx if installed."""
    links = Links(site, request)
    return {
        "tabs": [
            PageLink(
                label=tab.label,
                url=address(site, tab.name),
                current=tab.name == current,
            )
            for tab in TABS
            if links.allowed(tab.model) or tab.also_for(actor_of(request))
        ],
        "search_url": address(site, "search") if links.allowed(Run) else None,
        "live": apps.is_installed("django_htmx"),
    }


def address(site: AdminSite, name: str, *args: Any) -> str:
    """Return the URL of one of this package's pages in an admin site."""
    return reverse(f"admin:{PREFIX}{name}", args=args, current_app=site.name)


def paths(admin: Any, routes: Mapping[str, tuple[str, View]]) -> list[URLPattern]:
    """Return URL patterns for pages by name, for ``ModelAdmin.get_urls``.

    Each view is called with the admin and the request, after the login check.
    """
    return [
        path(
            route,
            admin.admin_site.admin_view(
                with_viewer(admin.admin_site, wraps(view)(partial(view, admin)))
            ),
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
    """Return the response of a page with tabs.

    ``template`` is a name below ``admin/durable_jobs/``. The template extends
    ``page.html``.
    """
    known = {**site.each_context(request), **base_context(site, request, current)}
    known |= {"title": title, "opts": Run._meta, **context}
    request.current_app = site.name
    return TemplateResponse(
        request, f"admin/durable_jobs/{template}", known, status=status
    )


# The viewer


def viewer_of(site: AdminSite, request: HttpRequest) -> Viewer:
    """Return the viewer of a request, for the rule ``VISIBLE_RUNS``. Cached."""
    viewers: dict[str, Viewer] = request.__dict__.setdefault(
        "_durable_jobs_viewers", {}
    )
    if site.name not in viewers:
        viewers[site.name] = Viewer(
            getattr(request, "user", None),
            ADMIN,
            request,
            shown=_project_runs(site, request),
        )
    return viewers[site.name]


def _project_runs(site: AdminSite, request: HttpRequest) -> Callable[[], Any] | None:
    """Return a function that returns the project's own RunAdmin queryset, if any."""
    if not site.is_registered(Run):
        return None
    run_admin: Any = site.get_model_admin(Run)
    plain = getattr(type(run_admin), "package_get_queryset", None)
    plain = plain is not None and run_admin.get_queryset.__func__ is plain
    return None if plain else partial(run_admin.get_queryset, request)


def with_viewer(site: AdminSite, view: View) -> View:
    """Limit a view and the rendering of its response to what the viewer may see."""

    @wraps(view)
    def view_as_viewer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not site.has_permission(request):
            return view(request, *args, **kwargs)  # redirects to the login page
        viewer = viewer_of(site, request)
        with seen_by(viewer):
            runs()  # raises early if the VISIBLE_RUNS rule fails
            response = view(request, *args, **kwargs)
        if isinstance(response, SimpleTemplateResponse) and not response.is_rendered:
            drawn = response.render

            def render() -> Any:
                with seen_by(viewer):
                    return drawn()

            response.render = render  # type: ignore[method-assign]  # of this one
        return response

    return view_as_viewer


def actor_of(request: HttpRequest) -> Actor:
    """Return the user of a request as an actor."""
    return Actor(request.user)
