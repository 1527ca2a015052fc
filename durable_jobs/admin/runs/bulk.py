"""Bulk actions on selected runs, or on all runs that match the list's filter."""

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
from durable_jobs.admin.pages import actor_of, address, page, viewer_of
from durable_jobs.admin.runs import filter_form
from durable_jobs.control import bulk
from durable_jobs.control.run_actions import ACTIONS
from durable_jobs.exceptions import ActionNotAllowed, FilterError, LimitExceeded
from durable_jobs.models import Run
from durable_jobs.queries import visibility
from durable_jobs.queries.run_filter import RunFilter

MAX_REASON_LENGTH = 500
HIDDEN_RUNS = gettext_lazy("You may not see some of these runs. Nothing was done.")

BulkAction = Callable[[Any, HttpRequest, Any], HttpResponse | None]


def _action(name: str) -> BulkAction:
    label: Any = ACTIONS[name].label

    @admin.action(permissions=[name], description=label)
    def bulk_action(
        run_admin: Any, request: HttpRequest, rows: Any
    ) -> HttpResponse | None:
        return _confirmation(run_admin, request, name)

    bulk_action.__name__ = f"{name}_runs"
    return bulk_action


#: One admin action per bulk action.
BULK_ACTIONS: list[BulkAction] = [_action(name) for name in bulk.BULK]


def selectable(request: HttpRequest) -> bool:
    """Return whether the posted selection consists of run ids."""
    try:
        RunFilter.parse({"id": request.POST.getlist(ACTION_CHECKBOX_NAME)})
    except FilterError as error:
        messages.error(request, error.message)
        return False
    return True


def _confirmation(
    run_admin: Any, request: HttpRequest, action: str
) -> HttpResponse | None:
    """Show the confirmation page with the number of runs."""
    if request.POST.getlist("select_across")[-1:] == ["1"]:
        selected = filter_form.requested_filter(request).frozen()
    else:
        selected = RunFilter.parse({"id": request.POST.getlist(ACTION_CHECKBOX_NAME)})
    count = bulk.counted(selected)
    if not count:
        messages.warning(request, _("No run matches the filter."))
        return None
    if not _may_view_all(run_admin, request, selected):
        messages.error(request, HIDDEN_RUNS)
        return None
    return page(
        run_admin.admin_site,
        request,
        "bulk.html",
        title=_title(action, count),
        current=run_admin.tab,
        action=ACTIONS[action],
        max_runs=bulk.MOST,
        too_many=count > bulk.MOST,
        conditions=filter_form.describe(selected),
        filter=urlencode(selected.as_params(), doseq=True),
        key=str(uuid.uuid4()),
        max_length=MAX_REASON_LENGTH,
        bulk_url=address(run_admin.admin_site, "bulk"),
        back=request.get_full_path(),
    )


def _may_view_all(run_admin: Any, request: HttpRequest, selected: RunFilter) -> bool:
    """Return whether the project's own RunAdmin shows all of the selected runs."""
    if run_admin.get_queryset.__func__ is ReadOnlyAdmin.package_get_queryset:
        return True
    shown = bulk.counted(selected, run_admin.get_queryset(request))
    # The bulk run has no request, so it cannot apply the project's own RunAdmin.
    viewer = replace(viewer_of(run_admin.admin_site, request), shown=None, _kept={})
    with visibility.seen_by(viewer):
        return shown == bulk.counted(selected)


def _title(action: str, count: int) -> str:
    shown = f"{count - 1:,}+" if count > bulk.MOST else f"{count:,}"
    text = ngettext("%(action)s %(count)s run", "%(action)s %(count)s runs", count)
    return text % {"action": ACTIONS[action].label, "count": shown}


def view(run_admin: Any, request: HttpRequest) -> HttpResponse:
    """Start the confirmed bulk run once, and redirect to it."""
    if not run_admin.has_view_permission(request):
        raise PermissionDenied
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    back = address(run_admin.admin_site, "run_changelist")
    action, key = request.POST.get("action", ""), request.POST.get("key", "")
    if action not in bulk.BULK or not _is_key(key):
        messages.error(request, _("The form is incomplete. Nothing was done."))
        return HttpResponseRedirect(back)
    reason = (
        request.POST.get("reason", "").replace("\x00", "")[:MAX_REASON_LENGTH].strip()
    )
    try:
        given = RunFilter.parse(dict(QueryDict(request.POST.get("filter", "")).lists()))
        selected = filter_form.allowed(request, given)
        if not _may_view_all(run_admin, request, selected):
            raise ActionNotAllowed(str(HIDDEN_RUNS))
        run = bulk.begin(actor_of(request), action, selected, reason, key=key)
    except (FilterError, LimitExceeded, ActionNotAllowed) as error:
        messages.error(request, error.message)
        return HttpResponseRedirect(back)
    text = _("%(what)s. This page shows the progress.")
    messages.success(request, text % {"what": _title(action, run.data["count"])})
    links = Links(run_admin.admin_site, request)
    there = links.page(Run, run.pk) if visibility.sees(run) else None
    return HttpResponseRedirect(there or back)


def _is_key(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
