"""Endpoints that list schedules and act on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.http import Http404, HttpRequest
from ninja import Query, Router
from ninja.security.base import AuthBase

from durable_jobs.api import cursors
from durable_jobs.api.auth import actor_with, address_part, authenticators, require
from durable_jobs.api.problems import responses
from durable_jobs.api.schemas import Page, ReasonIn, ScheduleDone, SchedulesOut
from durable_jobs.control import authorized_actions
from durable_jobs.control.actor import Actor
from durable_jobs.exceptions import ActionNotAllowed, FilterError, UnknownFunction
from durable_jobs.models import Schedule
from durable_jobs.queries import schedules as schedule_queries
from durable_jobs.queries import visibility

router = Router(tags=["schedules"])

_DONE = responses({200: ScheduleDone}, 404, 409, 415)
_PERMISSIONS = {
    "pause": authorized_actions.PAUSE_SCHEDULE,
    "resume": authorized_actions.PAUSE_SCHEDULE,
    "run": authorized_actions.RUN_SCHEDULE,
}


def _on_schedule(action: str) -> Sequence[AuthBase]:
    """Return the authenticators of an endpoint for an action on a schedule."""

    def check(request: HttpRequest, actor: Actor) -> None:
        require(actor, _PERMISSIONS[action])
        _find(int(address_part(request, "schedule_id")))

    return authenticators(check)


@router.get("/schedules", response=responses({200: SchedulesOut}))
def list_schedules(
    request: HttpRequest, query: Query[Page], function: str | None = None
) -> Any:
    """List declared schedules and schedules of users."""
    actor_with(request, "durable_jobs.view_schedule")
    if function is not None and "\x00" in function:
        msg = "Expected the id of a function as the filter 'function'."
        raise FilterError(msg)
    above = cursors.number(query.cursor)
    rows, last = schedule_queries.page(function, query.limit, above)
    return {"schedules": _without_hidden_runs(*rows), "next": cursors.of_number(last)}


@router.post(
    "/schedules/{int:schedule_id}/pause", auth=_on_schedule("pause"), response=_DONE
)
def pause_schedule(
    request: HttpRequest, schedule_id: int, payload: ReasonIn | None = None
) -> Any:
    """Pause a schedule: it starts no runs until resumed."""
    return _act(request, "pause", schedule_id, payload)


@router.post(
    "/schedules/{int:schedule_id}/resume", auth=_on_schedule("resume"), response=_DONE
)
def resume_schedule(
    request: HttpRequest, schedule_id: int, payload: ReasonIn | None = None
) -> Any:
    """Resume a schedule with its next occurrence."""
    return _act(request, "resume", schedule_id, payload)


@router.post(
    "/schedules/{int:schedule_id}/run", auth=_on_schedule("run"), response=_DONE
)
def run_schedule(
    request: HttpRequest, schedule_id: int, payload: ReasonIn | None = None
) -> Any:
    """Start a run now.

    ``run`` is null if the run waits for the previous one, or if you may not see it.
    """
    return _act(request, "run", schedule_id, payload)


def _without_hidden_runs(*schedules: Schedule) -> Sequence[Schedule]:
    """Return schedules without the ids of last runs that the actor may not see."""
    last = {one.last_run for one in schedules if one.last_run is not None}
    seen = visibility.visible_keys(last)
    for schedule in schedules:
        if schedule.last_run not in seen:
            schedule.last_run = None
    return schedules


def _find(schedule_id: int) -> Schedule:
    schedule = schedule_queries.get(schedule_id)
    if schedule is None:
        raise Http404
    return schedule


def _act(
    request: HttpRequest, action: str, schedule_id: int, given: ReasonIn | None
) -> Any:
    actor = actor_with(request, _PERMISSIONS[action])
    schedule = _find(schedule_id)
    reason, started = given.reason if given else "", None
    try:
        if action == "pause":
            authorized_actions.pause_schedule(actor, schedule, reason)
        elif action == "resume":
            authorized_actions.resume_schedule(actor, schedule, reason)
        else:
            started = authorized_actions.run_schedule(actor, schedule, reason=reason)
    except UnknownFunction as error:
        raise ActionNotAllowed(error.message) from None
    schedule.refresh_from_db()
    _without_hidden_runs(schedule)
    visible = started is not None and visibility.sees(started.run)
    return {
        "schedule": schedule,
        "run": started.run.pk if started and visible else None,
    }
