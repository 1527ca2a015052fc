"""Actions on the runs that are selected in the list, or on all that it is about."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import PermissionDenied
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    QueryDict,
)
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor, address, page, viewer
from durable_jobs.admin.runs import filter_form
from durable_jobs.control import bulk
from durable_jobs.control.run_actions import ACTIONS
from durable_jobs.exceptions import ActionNotAllowed, FilterError, LimitExceeded
from durable_jobs.models import Run
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import RunFilter

_LONGEST = 500
UNSEEN = gettext_lazy(
    "Some of these runs are not among those that you may see. Nothing was done."
)

Action = Callable[[Any, HttpRequest, Any], HttpResponse | None]


def _action(name: str) -> Action:
    label: Any = ACTIONS[name].label

    @admin.action(permissions=[name], description=label)
    def ask(run_admin: Any, request: HttpRequest, rows: Any) -> HttpResponse | None:
        return _confirmation(run_admin, request, name)

    ask.__name__ = f"{name}_runs"
    return ask


#: One action for each action that can be done to many.
BULK_ACTIONS: list[Action] = [_action(name) for name in bulk.BULK]


def selectable(request: HttpRequest) -> bool:
    """Tell whether what is posted as selected are runs' ids."""
    try:
        RunFilter.parse({"id": request.POST.getlist(ACTION_CHECKBOX_NAME)})
    except FilterError as error:
        messages.error(request, error.message)
        return False
    return True


def _confirmation(
    run_admin: Any, request: HttpRequest, verb: str
) -> HttpResponse | None:
    """Ask whether it is to be done, to how many runs, and why."""
    if request.POST.getlist("select_across")[-1:] == ["1"]:
        chosen = filter_form.chosen(request).frozen()
    else:
        chosen = RunFilter.parse({"id": request.POST.getlist(ACTION_CHECKBOX_NAME)})
    count = bulk.counted(chosen)
    if not count:
        messages.warning(request, _("No run fits the filter."))
        return None
    if not _sees_all(run_admin, request, chosen):
        messages.error(request, UNSEEN)
        return None
    return page(
        run_admin.admin_site,
        request,
        "bulk.html",
        title=_title(verb, count),
        current=run_admin.tab,
        verb=ACTIONS[verb],
        most=bulk.MOST,
        too_many=count > bulk.MOST,
        words=filter_form.words(chosen),
        filter=urlencode(chosen.as_params(), doseq=True),
        key=str(uuid.uuid4()),
        longest=_LONGEST,
        bulk_url=address(run_admin.admin_site, "bulk"),
        back=request.get_full_path(),
    )


def _sees_all(run_admin: Any, request: HttpRequest, chosen: RunFilter) -> bool:
    """Tell whether a host that shows only some runs shows all of the chosen ones."""
    if run_admin.get_queryset.__func__ is ReadOnlyAdmin.own_get_queryset:
        return True
    shown = bulk.counted(chosen, run_admin.get_queryset(request))
    # The run that does it has no request: it cannot ask the project's own admin.
    who = replace(viewer(run_admin.admin_site, request), shown=None, _kept={})
    with visibility.seen_by(who):
        return shown == bulk.counted(chosen)


def _title(verb: str, count: int) -> str:
    shown = f"{count - 1:,}+" if count > bulk.MOST else f"{count:,}"
    text = ngettext("%(verb)s %(count)s run", "%(verb)s %(count)s runs", count)
    return text % {"verb": ACTIONS[verb].label, "count": shown}


def view(run_admin: Any, request: HttpRequest) -> HttpResponse:
    """Begin what was confirmed, once, and lead to the run that does it."""
    if not run_admin.has_view_permission(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    back = address(run_admin.admin_site, "run_changelist")
    verb, key = request.POST.get("verb", ""), request.POST.get("key", "")
    if verb not in bulk.BULK or not _is_key(key):
        messages.error(request, _("This form is not complete. Nothing was done."))
        return HttpResponseRedirect(back)
    reason = request.POST.get("reason", "").replace("\x00", "")[:_LONGEST].strip()
    try:
        given = RunFilter.parse(dict(QueryDict(request.POST.get("filter", "")).lists()))
        chosen = filter_form.allowed(request, given)
        if not _sees_all(run_admin, request, chosen):
            raise ActionNotAllowed(str(UNSEEN))
        run = bulk.begin(actor(request), verb, chosen, reason, key=key)
    except (FilterError, LimitExceeded, ActionNotAllowed) as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(back)
    text = _("%(what)s: this run does it, step by step.")
    messages.success(request, text % {"what": _title(verb, run.data["count"])})
    links = Links(run_admin.admin_site, request)
    there = links.page(Run, run.pk) if visibility.sees(run) else None
    return HttpResponseRedirect(there or back)


def _is_key(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
