"""The page of queues, pauses, workers and limits in use."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from durable_jobs import clock
from durable_jobs.admin import descriptions
from durable_jobs.admin.confirmation import Confirmation, confirm
from durable_jobs.admin.display import length, moment, relative_time, short
from durable_jobs.admin.forms import Reason
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import View, actor_of, address, page
from durable_jobs.control import authorized_actions
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import FilterError
from durable_jobs.models import Limit, Pause, Run, Worker
from durable_jobs.queries import limits as limit_queries
from durable_jobs.queries import queues as queue_queries
from durable_jobs.queries import visibility
from durable_jobs.queries.limits import BacklogRow, LimitUsage
from durable_jobs.queries.queues import MAX_COUNT, Process, QueueUsage
from durable_jobs.store import db


def view(admin: Any, request: HttpRequest) -> HttpResponse:
    """Show the queues, pauses, workers and limits."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    query = {name: request.GET.get(name, "") for name in ("function", "key", "before")}
    show_payloads = admin.may_view_payloads(request)
    if query["key"] and not show_payloads:  # the existence of a key reveals the key
        raise PermissionDenied
    try:
        limits, older = limit_queries.limits(**query)
    except FilterError as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(address(admin.admin_site, "queues"))
    links, site = Links(admin.admin_site, request), admin.admin_site
    pauses, executing = queue_queries.pauses(), queue_queries.executing()
    processes = queue_queries.processes(executing)
    return page(
        site,
        request,
        "queues.html",
        title=_("Queues and limits"),
        current="queues",
        queues=[
            _queue(admin, request, one)
            for one in queue_queries.queues(pauses, executing, processes)
        ],
        pauses=[_pause(admin, request, one, show_payloads) for one in pauses],
        processes=[_process(one, links) for one in processes],
        limits=[_limit(admin, one, links, show_payloads) for one in limits],
        show_payloads=show_payloads,
        query=query,
        functions=sorted(function.id for function in registry),
        older=f"?{urlencode({**query, 'before': older})}" if older else None,
        looked_through=limit_queries.MAX_SEARCHED if _narrowed(query) else None,
    )  # fmt: skip


def _narrowed(query: dict[str, str]) -> bool:
    """Return whether the search scanned limits instead of using an index."""
    exact = query["key"] and registry.find(query["function"]) is not None
    return bool((query["function"] or query["key"]) and not exact)


def _queue(admin: Any, request: HttpRequest, queue: QueueUsage) -> dict[str, Any]:
    may = actor_of(request).may(authorized_actions.PAUSE_QUEUE)
    site, pause = admin.admin_site, queue.pause
    if pause is None:
        label, url = _("Pause"), address(site, "queue_pause", quote(queue.name))
    else:
        label, url = _("Resume"), address(site, "resume", pause.pk)
    return {
        "queue": queue,
        "ready": _capped(queue.ready),
        "backlogs": _capped(queue.backlogs),
        "oldest": None if queue.oldest is None else length(clock.now() - queue.oldest),
        "action": label,
        "url": url if may else None,
    }


def _process(process: Process, links: Links) -> dict[str, Any]:
    known = None if process.seen_at is None else links.page(Worker, process.name)
    return {
        "name": links.anchor(known, process.name),
        "kind": process.kind,
        "queues": ", ".join(process.queues),
        "runs": process.runs or "",
        "seen": relative_time(process.seen_at),
        "alive": process.alive,
    }


def _capped(count: int) -> str:
    """Return a count, with "+" if counting stopped at the maximum."""
    return f"{count:,}" if count <= MAX_COUNT else f"{MAX_COUNT:,}+"


def _pause(
    admin: Any, request: HttpRequest, pause: Pause, show_payloads: bool
) -> dict[str, Any]:
    may = actor_of(request).may(authorized_actions.permission(pause))
    return {
        "pause": pause,
        "key": pause.key if show_payloads else "",
        "name": pause.name
        if pause.kind == Pause.QUEUE
        else _function(admin, pause.name),
        "since": relative_time(pause.paused_at),
        "resume": address(admin.admin_site, "resume", pause.pk) if may else None,
    }


def _limit(
    admin: Any, limit: LimitUsage, links: Links, show_payloads: bool
) -> dict[str, Any]:
    limit_row, keyed_limit = limit.row, limit.keyed_limit
    return {
        "key": limit_row.key if show_payloads else "",
        "error": limit_row.error
        if show_payloads
        else limit_row.error and _("Limit error"),
        "link": links.anchor(
            links.page(Limit, limit_row.pk), limit_row.control.replace("_", " ")
        ),
        "function": _function(admin, limit_row.function),
        "rule": _rule(
            limit_row,
            keyed_limit.rule if keyed_limit else None,
            keyed_limit is not None,
        ),
        "used": _capped(limit.used),
        "holders": [
            format_html("{} {}", _run(run, links), relative_time(since))
            for run, since in limit.holders
        ],
        "more_holders": max(limit.used - len(limit.holders), 0),
        "backlogs": [_backlog(row, links) for row in limit.backlogs],
        "more_backlogs": limit.more_backlogs,
        "next": moment(limit_row.tat)
        if limit_row.tat and limit_row.tat > clock.now()
        else None,
    }


def _function(admin: Any, function_id: str) -> Any:
    if not function_id:
        return _("the account")
    url = address(admin.admin_site, "function", quote(function_id))
    return format_html('<a href="{}">{}</a>', url, function_id)


def _rule(limit_row: Limit, rule: Any, known: bool) -> str:
    if not known:
        return _("Not deployed")
    if not hasattr(rule, "limit"):
        return _("one live run")
    if limit_row.override is None:
        return descriptions.describe_rule(rule)
    return _("%(rule)s (declared: %(declared)s)") % {
        "rule": descriptions.describe_rule(rule, limit_row.override),
        "declared": descriptions.declared_limit(rule.limit),
    }


def _backlog(row: BacklogRow, links: Links) -> dict[str, Any]:
    return {
        "function": row.function,
        "runs": _capped(row.runs),
        "first": [_run(run, links) for run in row.first],
    }


def _run(run: Run, links: Links) -> SafeString:
    return links.anchor(links.page(Run, run.pk), short(run.pk))


# Pausing and resuming


def pause_view(admin: Any, request: HttpRequest, key: str) -> HttpResponse:
    """Confirm that a queue is to be paused. On POST pause it."""
    _permitted(admin, request, authorized_actions.PAUSE_QUEUE)
    queue = unquote(key)
    known = queue_queries.queues(queue_queries.pauses(), queue_queries.executing())
    if queue not in {one.name for one in known}:
        raise Http404
    back = address(admin.admin_site, "queues")

    def perform(form: Any) -> tuple[Any, str]:
        reason = form.cleaned_data["reason"]
        if authorized_actions.pause_queue(actor_of(request), queue, reason):
            return _("The queue was paused."), back
        return _("Already paused; the reason was updated."), back

    confirmation = Confirmation(
        title=_("Pause the queue %(queue)s") % {"queue": queue},
        action_label=_("Pause"),
        text=_(
            "No run of this queue starts until you resume. Runs in progress continue "
            "to their next step."
        ),
        back=back,
        back_label=_("Queues and limits"),
        current="queues",
        perform=perform,
        danger=True,
    )
    return confirm(admin.admin_site, request, confirmation)


def resume_view(admin: Any, request: HttpRequest, pk: int) -> HttpResponse:
    """Confirm that a pause is to end. On POST end it."""
    if not admin.has_view_permission(request):
        raise PermissionDenied
    # SQLite's numbers end processes too.
    every = visibility.pauses(db.rows(Pause))
    rows = every.filter(pk=min(pk, 2**63 - 1))
    pause = rows.first()
    back = address(admin.admin_site, "queues")
    if pause is None:
        return _already_resumed(request, back)
    _permitted(admin, request, authorized_actions.permission(pause))
    if pause.kind != Pause.QUEUE:
        back = address(admin.admin_site, "function", quote(pause.name))

    def perform(form: Any) -> tuple[Any, str]:
        authorized_actions.resume(actor_of(request), pause, form.cleaned_data["reason"])
        return _("Resumed."), back

    confirmation = Confirmation(
        title=_("Resume: %(what)s") % {"what": _named(admin, request, pause)},
        action_label=_("Resume"),
        text=pause.reason,
        form=Reason,
        back=back,
        back_label=_("Queues and limits") if pause.kind == Pause.QUEUE else pause.name,
        current="queues",
        perform=perform,
    )
    return confirm(admin.admin_site, request, confirmation)


def _named(admin: Any, request: HttpRequest, pause: Pause) -> str:
    key = pause.key if admin.may_view_payloads(request) else ""
    return f"{pause} {key}".rstrip()


def _already_resumed(request: HttpRequest, back: str) -> HttpResponse:
    actor = actor_of(request)
    if not actor.may(authorized_actions.PAUSE_QUEUE) and not actor.may(
        authorized_actions.PAUSE_FUNCTION
    ):
        raise PermissionDenied
    if request.method != "POST":
        raise Http404
    messages.warning(request, _("Already resumed by another user."))
    return HttpResponseRedirect(back)


def _permitted(admin: Any, request: HttpRequest, permission: str) -> None:
    if not admin.has_view_permission(request) or not actor_of(request).may(permission):
        raise PermissionDenied


#: URLs below the page, with their views.
BELOW: dict[str, tuple[str, View]] = {
    "queue_pause": ("queues/<str:key>/pause/", pause_view),
    "resume": ("pauses/<int:pk>/resume/", resume_view),
}
