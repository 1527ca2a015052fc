"""The pages of functions: triggers, limits, health and recent errors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from durable_jobs.admin import descriptions
from durable_jobs.admin.display import badge_of, length, moment, relative_time, short
from durable_jobs.admin.functions.pause import pause_view
from durable_jobs.admin.functions.start import start_view
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import View, actor_of, address, page
from durable_jobs.admin.related import MOST, newest, run_table
from durable_jobs.control import authorized_actions, send
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import PACKAGE_PREFIX, registry
from durable_jobs.models import Pause, Run, Schedule
from durable_jobs.queries import functions
from durable_jobs.queries.functions import FunctionHealth, RunSummary
from durable_jobs.queries.search import contains, searched_text

#: Functions per page of the list.
PAGE_SIZE = 25


def view(admin: Any, request: HttpRequest) -> HttpResponse:
    """List declared functions, and functions of live runs that are not deployed."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    query = request.GET.get("q", "").strip()
    every = sorted(registry, key=lambda function: function.id)
    wanted = [function for function in every if _matches(function, query)]
    page_of_functions = Paginator(wanted, PAGE_SIZE).get_page(request.GET.get("p"))
    ids = [function.id for function in page_of_functions]
    health, pauses = functions.health(ids), functions.pauses(ids)
    crons, links = functions.crons(ids), Links(admin.admin_site, request)
    show_payloads = admin.may_view_payloads(request)
    return page(
        admin.admin_site,
        request,
        "functions.html",
        title=_("Functions"),
        current="functions",
        query=query,
        page_of_functions=page_of_functions,
        rows=[
            {
                **_link(admin, function.id),
                "name": function.name,
                "version": function.version,
                "queue": function.queue,
                "about": function.description.strip().partition("\n")[0],
                "triggers": descriptions.triggers(function),
                "limits": descriptions.limits(function),
                "paused": [
                    _paused(one, show_payloads) for one in pauses.get(function.id, ())
                ],
                **_fires(crons.get(function.id, ())),
                **_health(health.get(function.id), links),
            }
            for function in page_of_functions
        ],
        looked_through=functions.RECENT,
        missing=[_link(admin, one) for one in functions.lost(registry.ids())],
    )


def _matches(function: Function, query: str) -> bool:
    return contains(f"{searched_text(function)} {function.queue}", query)


def _link(admin: Any, function_id: str) -> dict[str, str]:
    return {"id": function_id, "url": url_of(admin, function_id)}


def url_of(admin: Any, function_id: str) -> str:
    """Return the URL of a function's page."""
    return address(admin.admin_site, "function", quote(function_id))


def _paused(pause: Pause, show_payloads: bool) -> str:
    what = _("paused")
    if pause.kind == Pause.KEY:
        what = _("key paused")
        if show_payloads:
            what = _("key %(key)s paused") % {"key": pause.key}
    if pause.skip:
        what = _("%(what)s, new runs skipped") % {"what": what}
    return f"{what}: {pause.reason}" if pause.reason else what


def _fires(crons: Any) -> dict[str, Any]:
    upcoming = min((one.due_at for one in crons if one.due_at), default=None)
    last = max((one.last_fired_at for one in crons if one.last_fired_at), default=None)
    return {"next": relative_time(upcoming), "fired": relative_time(last)}


def _health(health: FunctionHealth | None, links: Links) -> dict[str, Any]:
    if health is None:
        return {}
    return {
        "health": health,
        "failing": None if health.failing is None else round(100 * health.failing),
        "median": length(health.typical),
        "last": _last(health.last, links),
        "last_at": relative_time(health.last.queued_at),
    }


def _last(run: RunSummary, links: Links) -> SafeString:
    return links.anchor(links.page(Run, run.pk), badge_of(run.status))


# One function


def one_view(admin: Any, request: HttpRequest, key: str) -> HttpResponse:
    """Show a function's declaration and the health of its newest runs."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    function_id, links = unquote(key), Links(admin.admin_site, request)
    function = registry.find(function_id)
    latest = [] if "\x00" in function_id else functions.latest(function_id)
    if function is None and not latest:
        raise Http404
    pauses = functions.pauses([function_id]).get(function_id, [])
    health = functions.health_of(latest, functions.LATEST) if latest else None
    more, show_payloads = (
        links.rows(Run, function=function_id),
        admin.may_view_payloads(request),
    )
    return page(
        admin.admin_site,
        request,
        "function.html",
        title=function.name if function else function_id,
        current="functions",
        function_id=function_id,
        declared=None if function is None else {
            "name": function.name,
            "queue": function.queue,
            "version": function.version,
            "description": function.description,
        },
        list_url=address(admin.admin_site, "functions"),
        triggers=descriptions.triggers(function) if function else [],
        limits=descriptions.limits(function) if function else [],
        settings=descriptions.settings(function) if function else [],
        **_health(health, links),
        looked_through=functions.LATEST,
        versions=Counter(r.version for r in latest if r.version).most_common(10),
        runs=run_table(newest(functions.newest(function_id)), links, more),
        most_runs=MOST,
        groups=[
            {
                "group": group if show_payloads else replace(group, message=""),
                "run": links.anchor(links.page(Run, group.run), short(group.run)),
                "last": moment(group.last),
            }
            for group in functions.error_groups(latest)
        ],
        most_failed=functions.FAILED,
        crons=[_cron(one, links) for one in functions.crons([function_id]).get(
            function_id, ())],
        schedules_url=links.rows(Schedule, function=function_id),
        pauses=[_pause(admin, request, one) for one in pauses],
        **_actions(admin, request, function, pauses),
    )  # fmt: skip


def _cron(schedule: Schedule, links: Links) -> dict[str, Any]:
    return {
        "link": links.anchor(links.page(Schedule, schedule.pk), schedule.cron),
        "tz": schedule.tz,
        "next": _("paused") if schedule.is_paused else relative_time(schedule.due_at),
        "fired": relative_time(schedule.last_fired_at),
    }


def _pause(admin: Any, request: HttpRequest, pause: Pause) -> dict[str, Any]:
    may = actor_of(request).may(authorized_actions.permission(pause))
    return {
        "text": _paused(pause, admin.may_view_payloads(request)),
        "since": relative_time(pause.paused_at),
        "url": address(admin.admin_site, "resume", pause.pk) if may else None,
    }


def _actions(
    admin: Any, request: HttpRequest, function: Function | None, pauses: list[Pause]
) -> dict[str, Any]:
    """Return the URLs of the actions that the viewer may use on a function."""
    if function is None:
        return {}
    actor, key, site = actor_of(request), quote(function.id), admin.admin_site
    whole = any(one.kind == Pause.FUNCTION for one in pauses)
    found: dict[str, Any] = {"paused_whole": whole}
    if actor.may(send.START) and not function.id.startswith(PACKAGE_PREFIX):
        found["start_url"] = address(site, "function_start", key)
    if actor.may(authorized_actions.PAUSE_FUNCTION):
        found["pause_url"] = address(site, "function_pause", key)
    return found


#: URLs below the list, with their views.
BELOW: dict[str, tuple[str, View]] = {
    "function": ("functions/<str:key>/", one_view),
    "function_start": ("functions/<str:key>/start/", start_view),
    "function_pause": ("functions/<str:key>/pause/", pause_view),
}
