"""Schedules: what there is, and the verbs on them."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest
from ninja import Query, Router

from durable_jobs.api import cursors
from durable_jobs.api.answers import answers
from durable_jobs.api.doors import need
from durable_jobs.api.schemas import Page, ReasonIn, ScheduleDone, SchedulesOut
from durable_jobs.control import operating
from durable_jobs.exceptions import FilterError, Refused, UnknownFunction
from durable_jobs.models import Schedule
from durable_jobs.queries import reading
from durable_jobs.store import db

router = Router(tags=["schedules"])

_DONE = answers({200: ScheduleDone}, 404, 409, 415)


@router.get("/schedules", response=answers({200: SchedulesOut}))
def list_schedules(
    request: HttpRequest, query: Query[Page], function: str | None = None
) -> Any:
    """List schedules, those of the code and those of users."""
    need(request, "durable_jobs.view_schedule")
    if function is not None and "\x00" in function:
        msg = "Expected the id of a function as the filter 'function'."
        raise FilterError(msg)
    above = cursors.number(query.cursor)
    rows, last = reading.schedules_page(function, query.limit, above)
    return {"schedules": rows, "next": cursors.of_number(last)}


@router.post("/schedules/{int:schedule_id}/pause", response=_DONE)
def pause_schedule(
    request: HttpRequest, schedule_id: int, payload: ReasonIn | None = None
) -> Any:
    """Fire no more until resumed."""
    return _steer(request, "pause", schedule_id, payload)


@router.post("/schedules/{int:schedule_id}/resume", response=_DONE)
def resume_schedule(
    request: HttpRequest, schedule_id: int, payload: ReasonIn | None = None
) -> Any:
    """Fire again, from now on."""
    return _steer(request, "resume", schedule_id, payload)


@router.post("/schedules/{int:schedule_id}/run", response=_DONE)
def run_schedule(
    request: HttpRequest, schedule_id: int, payload: ReasonIn | None = None
) -> Any:
    """Start a run now; ``run`` is null when it has to wait for the one before it."""
    return _steer(request, "run", schedule_id, payload)


_PERMISSIONS = {
    "pause": operating.PAUSE_SCHEDULE,
    "resume": operating.PAUSE_SCHEDULE,
    "run": operating.RUN_SCHEDULE,
}


def _steer(
    request: HttpRequest, verb: str, schedule_id: int, given: ReasonIn | None
) -> Any:
    who = need(request, _PERMISSIONS[verb])
    rows = Schedule.objects.using(db.alias()).filter(pk=schedule_id)
    schedule = rows.first()
    if schedule is None:
        raise Http404
    reason, started = given.reason if given else "", None
    try:
        if verb == "pause":
            operating.pause_schedule(who, schedule, reason)
        elif verb == "resume":
            operating.resume_schedule(who, schedule, reason)
        else:
            started = operating.run_schedule(who, schedule, reason=reason)
    except UnknownFunction as error:
        raise Refused(error.message) from None
    schedule.refresh_from_db()
    return {"schedule": schedule, "run": None if started is None else started.run.pk}
