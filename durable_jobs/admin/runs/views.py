"""The page of one run, updated live, with its actions."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Max, Min, Q, QuerySet, Sum, TextField, Value
from django.db.models.functions import Cast
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy as _lazy

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.display import badge, short
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import View, actor_of, address, page, paths
from durable_jobs.admin.related import Related
from durable_jobs.admin.runs import actions, timeline_update
from durable_jobs.admin.runs.failure import run_failure
from durable_jobs.admin.runs.reason import run_reason
from durable_jobs.admin.runs.timeline import WaitLinks, chart
from durable_jobs.admin.runs.timeline_view import TimelineView
from durable_jobs.control import send
from durable_jobs.control.actor import Actor
from durable_jobs.control.run_actions import applies, may
from durable_jobs.models import Event, Run, Step, Wait, WaitKind
from durable_jobs.queries import run_document
from durable_jobs.statuses import STEP_ENDED, RunStatus
from durable_jobs.store import db

#: The status with which htmx stops polling.
STOP_POLLING = 286
NO_CONTENT = 204
#: The templates of a poll's response: all of the live part, or what changed.
LIVE_PART, UPDATE = "live.html", "run_update.html"
#: Seconds between two polls of a live run, by status.
POLL_INTERVALS = {RunStatus.RUNNING: 1, RunStatus.QUEUED: 1, RunStatus.WAITING: 3}
SLOW_POLL_INTERVAL = 15
#: The longest generated test that a page shows, in characters.
INLINE = 200_000


#: Formats in which a run can be copied, with their pages.
DOWNLOADS = ((_lazy("JSON"), "run_document"), (_lazy("Copy as test"), "run_test"))


class RunPages(ReadOnlyAdmin):
    """Add the timeline, actions and live updates to the page of a run."""

    def get_urls(self) -> list[Any]:
        views: dict[str, tuple[str, View]] = {
            "run_act": ("<uuid:pk>/act/<slug:action>/", actions.view),
            "run_document": ("<uuid:pk>/history.json", _history),
            "run_test": ("<uuid:pk>/test/", _test),
        }
        return [*paths(self, views), *super().get_urls()]

    def change_view(
        self,
        request: HttpRequest,
        object_id: str,
        form_url: str = "",
        extra_context: Any = None,
    ) -> HttpResponse:
        """Show the run; for a polling page what changed, or 204 without a change.

        Status 286 stops the polling when the run has ended.
        """
        seen = request.GET.get("seen")
        if seen is None or request.headers.get("HX-Request") != "true":
            return super().change_view(request, object_id, form_url, extra_context)
        run = self._run_without_payloads(request, object_id)
        if run is not None and seen == version(run):
            return HttpResponse(status=NO_CONTENT)
        shown = super().change_view(request, object_id, form_url, extra_context)
        return _as_update(request, shown) if shown.status_code == 200 else shown

    def _run_without_payloads(self, request: HttpRequest, object_id: str) -> Run | None:
        try:
            key = Run._meta.pk.to_python(object_id)
        except ValidationError:
            return None  # change_view handles the invalid id
        found: Run | None = self.get_queryset(request).filter(pk=key).first()
        if found is not None and not self.has_view_permission(request, found):
            return None
        return found

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Add the allowed actions and the poll interval."""
        run = context["original"]
        show_payloads = self.may_view_payloads(request, run)
        context.update(
            title=run.function,
            subtitle=None,
            run_short=short(run.pk),
            run_badge=badge(run),
            poll=TimelineView.parse(request.GET).query(seen=version(run))
            if run.is_live
            else "",
            every=POLL_INTERVALS.get(run.status, SLOW_POLL_INTERVAL)
            if run.is_live
            else None,
            buttons=actions.buttons(self, request, run),
            downloads=[
                (label, address(self.admin_site, name, run.pk))
                for label, name in DOWNLOADS
                if show_payloads
            ],
        )
        return super().render_change_form(request, context, *args, **kwargs)

    def sections(self, row: Any, links: Links) -> dict[str, Any]:
        """Return the run's timeline, related objects, and the reason why it waits."""
        related = Related(row, links)
        wait_links = _wait_links(self, links.request, row)
        show_payloads = self.may_view_payloads(links.request, row)
        view = TimelineView.parse(links.request.GET)
        actor = actor_of(links.request)
        allowed = {
            name for name in ("redrive", "rerun") if may_act_on(actor, name, row)
        }
        return {
            "neighbours": related.neighbours(),
            "chart": chart(
                row, links, related.children, view, wait_links, show_payloads
            ),
            "children_version": timeline_update.version_of(
                [(child.pk, child.status) for child in related.children]
            ),
            "steps_url": links.rows(Step, run=row.pk),
            "runs": related.started,
            "reason": run_reason(row, links, wait_links, show_payloads),
            "failure": run_failure(self, row, links, allowed, show_payloads),
        }


def _as_update(request: HttpRequest, response: Any) -> HttpResponse:
    """Reduce the page of a run to its live part, or to what changed of that."""
    context = response.context_data
    is_live = context["original"].is_live
    known = timeline_update.parse(request.GET.get("rows", ""))
    found = timeline_update.update(context["chart"].lines, known) if is_live else None
    context["update"] = found
    response.template_name = f"admin/durable_jobs/{UPDATE if found else LIVE_PART}"
    if found is None:
        response["HX-Reswap"] = "outerHTML"
    if not is_live:
        response.status_code = STOP_POLLING
    return response  # type: ignore[no-any-return]  # Django's stubs hide its template


def version(run: Run) -> str:
    """Return a hash that changes with everything on a run's page."""
    done = Count("pk", filter=Q(status__in=sorted(STEP_ENDED)))
    counts = (Count("pk"), Max("position"), Sum("attempt"), done)
    steps = _in_text(db.rows(Step), run, *counts)
    waits = _in_text(db.rows(Wait), run, Count("pk"), Min("pk"), Max("pk"),
                     Max("due_at"))  # fmt: skip
    facts = [
        run.status, run.reason, run.attempt, run.claim_count,
        run.crash_count, run.wake_requested,
        run.due_at, run.backlog, run.worker, run.started_at, run.ended_at,
        *sorted(steps.union(waits, all=True)),
    ]  # fmt: skip
    text = json.dumps([str(fact) for fact in facts])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _in_text(rows: QuerySet[Any], run: Run, *facts: Any) -> QuerySet[Any, Any]:
    """Return a row of facts about a run's steps or waits, as text.

    As text both fit into one query, so that a poll needs only two.
    """
    names = [f"fact_{number}" for number in range(len(facts))]
    columns = [Cast(fact, TextField()) for fact in facts]
    grouped = rows.filter(run_id=run.pk).order_by().values("run_id")
    found = grouped.annotate(
        table=Value(rows.model.__name__), **dict(zip(names, columns, strict=True))
    )
    listed: QuerySet[Any, Any] = found.values_list("table", *names)
    return listed


def _wait_links(admin: Any, request: HttpRequest, run: Run) -> WaitLinks:
    """Return a function that adds the viewer's actions to a wait's description."""
    actor = actor_of(request)
    allowed_actions = [
        action
        for action in ("wake", "retry", "answer")
        if may_act_on(actor, action, run)
    ]
    sends = actor.may(send.SEND) and Links(admin.admin_site, request).allowed(Event)

    def add_links(wait: Wait, text: SafeString) -> SafeString:
        step = urlencode({"step": wait.step})
        found = [
            (f"{actions.url_of(admin, run, action)}?{step}", label)
            for action, label in WAIT_ACTIONS.get(wait.kind, ())
            if action in allowed_actions
        ]
        if sends and wait.kind == WaitKind.EVENT:
            form = address(admin.admin_site, "event_send")
            name = urlencode({"name": wait.name})
            found.append((f"{form}?{name}", _("send the event")))
        link = '<a class="durable-do" href="{}">{}</a>'
        return format_html("{} {}", text, format_html_join(" ", link, found))

    return add_links


def may_act_on(actor: Actor, action: str, run: Run) -> bool:
    """Return whether an action applies to the run and the user may use it."""
    return applies(action, run) and may(actor, action, run)


_ANSWER = ("answer", _lazy("answer"))
_SKIP = ("answer", _lazy("skip with a value"))
#: The actions that end a kind of wait.
WAIT_ACTIONS: dict[str, tuple[tuple[str, Any], ...]] = {
    WaitKind.SLEEP: (("wake", _lazy("wake now")),),
    WaitKind.RETRY: (("retry", _lazy("retry now")), _SKIP),
    WaitKind.POLL: (("wake", _lazy("check now")), _SKIP),
    WaitKind.EVENT: (_ANSWER,),
    WaitKind.SIGNAL: (_ANSWER,),
    WaitKind.MODEL: (_SKIP,),
    WaitKind.CHILD: (_SKIP,),
    WaitKind.CALLBACK: (_ANSWER,),
}


def _history(admin: Any, request: HttpRequest, pk: str) -> HttpResponse:
    """Send the history of a run as a JSON file."""
    run = _permitted(admin, request, pk)
    response = JsonResponse(run_document.history(run), json_dumps_params={"indent": 1})
    response["Content-Disposition"] = f'attachment; filename="run-{run.pk}.json"'
    response["Cache-Control"] = "no-store"
    return response


def _test(admin: Any, request: HttpRequest, pk: str) -> HttpResponse:
    run = _permitted(admin, request, pk)
    text = run_document.as_test(run_document.history(run))
    return page(
        admin.admin_site,
        request,
        "text.html",
        title=_("Copy as test: %(function)s") % {"function": run.function},
        current="run_changelist",
        back=Links(admin.admin_site, request).page(Run, run.pk),
        back_label=run,
        text=text if len(text) <= INLINE else "",
        help=_(
            "The test needs the test kit: the fixture durable_kit or "
            "durable_jobs.testing.Kit. Recorded steps do not run again."
        ),
    )


def _permitted(admin: Any, request: HttpRequest, pk: str) -> Run:
    run: Run = admin.get_object(request, str(pk))
    if not admin.has_view_permission(request, run):
        raise PermissionDenied
    if not admin.may_view_payloads(request, run):
        raise PermissionDenied
    return run
