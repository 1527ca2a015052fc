"""The page of one schedule: next occurrences, past runs and actions."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from durable_jobs import clock
from durable_jobs.admin.base import ReadOnlyAdmin
from durable_jobs.admin.confirmation import Confirmation, IdempotentForm, confirm
from durable_jobs.admin.display import length, moment
from durable_jobs.admin.forms import Reason
from durable_jobs.admin.links import Links
from durable_jobs.admin.pages import actor_of, address, paths
from durable_jobs.control import authorized_actions
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.models import Run, Schedule
from durable_jobs.queries import schedules
from durable_jobs.queries.schedules import PastOccurrence

#: Next occurrences on the page of a schedule.
MAX_OCCURRENCES = 10

ACTIONS = {
    "run": (gettext_lazy("Run now"), authorized_actions.RUN_SCHEDULE),
    "pause": (gettext_lazy("Pause"), authorized_actions.PAUSE_SCHEDULE),
    "resume": (gettext_lazy("Resume"), authorized_actions.PAUSE_SCHEDULE),
}


class RunScheduleForm(IdempotentForm, Reason):
    """The reason, and how many occurrences were queued when the form was shown."""

    queued = forms.IntegerField(widget=forms.HiddenInput, min_value=0)
    field_order = ("reason", "token", "queued")


class SchedulePages(ReadOnlyAdmin):
    """Add actions and occurrences to the page of a schedule."""

    def get_urls(self) -> list[Any]:
        views = {"schedule_act": ("<int:pk>/act/<slug:action>/", action_view)}
        return [*paths(self, views), *super().get_urls()]

    def sections(self, row: Any, links: Links) -> dict[str, Any]:
        """Return the next and past occurrences and the allowed actions."""
        actor = actor_of(links.request)
        return {
            "title": str(row),
            "subtitle": None,
            "coming": _coming(row),
            "schedule_zone": row.tz,
            "your_zone": timezone.get_current_timezone_name(),
            "marks": [_mark(mark, links) for mark in schedules.history(row)],
            "actions": [
                {"label": ACTIONS[action][0], "url": _url(self, row, action)}
                for action in _possible_actions(row)
                if actor.may(ACTIONS[action][1])
            ],
        }


def _coming(schedule: Schedule) -> list[dict[str, Any]]:
    """Return the next occurrences in the schedule's time zone and the viewer's."""
    try:
        occurrences = schedule.next_fires(MAX_OCCURRENCES)
    except ConfigurationError:
        return []
    now = clock.now()
    return [
        {
            "in_schedule_zone": f"{time:%a %d %b %Y %H:%M %Z}",
            "yours": moment(time),
            "left": length(max(time - now, now - now)),
        }
        for time in occurrences
    ]


def _mark(mark: PastOccurrence, links: Links) -> dict[str, Any]:
    if mark.run is None:
        what = _("no run")
    else:
        what = f"{mark.run.get_status_display()} {mark.run.reason}".strip()
    if mark.manual:
        what = _("%(what)s, outside the schedule") % {"what": what}
    local = timezone.localtime(mark.at)
    return {
        "status": mark.run.status if mark.run else "none",
        "url": links.page(Run, mark.run.pk) if mark.run else None,
        "text": f"{local:%Y-%m-%d %H:%M:%S %Z}: {what}",
    }


def _possible_actions(schedule: Schedule) -> list[str]:
    """Return the actions that apply to a schedule in its present state."""
    found = ["run"] if schedule.in_code else []
    return [*found, "resume" if schedule.is_paused else "pause"]


def _url(admin: Any, schedule: Schedule, action: str) -> str:
    return address(admin.admin_site, "schedule_act", schedule.pk, action)


# Actions


def action_view(admin: Any, request: HttpRequest, pk: int, action: str) -> HttpResponse:
    """Show the confirmation. On POST act, then show the schedule or the new run."""
    if action not in ACTIONS:
        raise Http404
    label, permission = ACTIONS[action]
    if not admin.has_view_permission(request) or not actor_of(request).may(permission):
        raise PermissionDenied
    if pk >= 2**63:  # larger than any database key
        raise Http404
    schedule = admin.get_object(request, str(pk))
    links = Links(admin.admin_site, request)
    back = links.page(Schedule, schedule.pk) or ""

    def perform(form: Any) -> tuple[Any, str]:
        return _do(request, schedule, action, form.cleaned_data, links)

    stale = "" if action in _possible_actions(schedule) else _STALE[action]
    confirmation = Confirmation(
        title=f"{label}: {schedule}",
        action_label=label,
        text=_about(schedule) if action == "run" else _ABOUT[action],
        form=_form(schedule) if action == "run" else Reason,
        back=back,
        back_label=schedule,
        current=admin.tab,
        perform=perform,
        stale=stale,
        danger=action == "pause",
    )
    return confirm(admin.admin_site, request, confirmation)


_ABOUT = {
    "pause": gettext_lazy("No run starts until you resume."),
    "resume": gettext_lazy(
        "Starts with the next occurrence. Missed runs are not started."
    ),
}
_STALE = {
    "run": gettext_lazy("The schedule is not deployed, so it cannot be run."),
    "pause": gettext_lazy("The schedule is already paused."),
    "resume": gettext_lazy("The schedule is not paused."),
}


def _about(schedule: Schedule) -> str:
    if schedule.overlap == "skip":
        return _("If a run is in progress, the new run is recorded as skipped.")
    if schedule.overlap == "queue":
        return _("If a run is in progress, the new run starts when that one ends.")
    return _("Starts one run outside the schedule.")


def _form(schedule: Schedule) -> Any:
    initial = {"queued": len(schedule.queued_occurrences)}

    def made(data: Any) -> RunScheduleForm:
        return RunScheduleForm(data, initial=initial)

    return made


def _do(
    request: HttpRequest,
    schedule: Schedule,
    action: str,
    chosen: dict[str, Any],
    links: Links,
) -> tuple[Any, str]:
    actor, reason = actor_of(request), chosen["reason"]
    back = links.page(Schedule, schedule.pk) or ""
    if action == "pause":
        authorized_actions.pause_schedule(actor, schedule, reason)
        return _("The schedule was paused."), back
    if action == "resume":
        authorized_actions.resume_schedule(actor, schedule, reason)
        return _("The schedule was resumed."), back
    form = authorized_actions.RunForm(chosen["token"], chosen["queued"])
    started = authorized_actions.run_schedule(actor, schedule, form=form, reason=reason)
    if started is None:
        return _("The run starts when the previous run has ended."), back
    url = links.page(Run, started.run.pk) or back
    if started.new:
        return _("The run was started."), url
    return _("This form was sent before. No new run was started."), url
