"""Endpoints that start runs and act on runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from ninja import Router, Status
from ninja.security.base import AuthBase

from durable_jobs.api import lookup
from durable_jobs.api.auth import (
    actor_with,
    address_part,
    authenticators,
    require,
    with_permission,
)
from durable_jobs.api.problems import Problem, responses
from durable_jobs.api.schemas import (
    FIRST_YEAR,
    LAST_YEAR,
    ActionOut,
    AnswerIn,
    BulkIn,
    Job,
    ReasonIn,
    RerunIn,
    RunOut,
    StartIn,
)
from durable_jobs.control import bulk, send
from durable_jobs.control.actor import Actor
from durable_jobs.control.run_actions import ACTIONS, act
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import ActionNotAllowed, DuplicateKeyError, UnknownFunction
from durable_jobs.queries import visibility
from durable_jobs.types import Duration

router = Router(tags=["runs"])

_DONE = responses({200: ActionOut}, 404, 409, 415)
_CREATED = responses({201: ActionOut}, 404, 409, 415)
_STARTED = responses({200: RunOut, 201: RunOut}, 404, 409, 415)


def _on_run(*actions: str) -> Sequence[AuthBase]:
    """Return the authenticators of an endpoint for one of these actions on a run."""
    return authenticators(
        lookup.run_with(*(ACTIONS[action].permission for action in actions))
    )


def _may_start(request: HttpRequest, actor: Actor) -> None:
    require(actor, send.START)
    actor.check_may_set_data(registry.get(address_part(request, "function_id")))


@router.post(
    "/functions/{function_id}/runs",
    auth=authenticators(_may_start),
    response=_STARTED,
    tags=["functions"],
)
def start_run(
    request: HttpRequest, function_id: str, payload: StartIn | None = None
) -> Any:
    """Start a run. Returns 200 with the existing run if the key was used before."""
    actor = actor_with(request, send.START)
    function = registry.get(function_id)
    given = payload or StartIn()
    started = send.start(
        actor,
        function,
        given.data,
        key=given.key or "",
        run_after=_after(given.run_after),
        priority=given.priority,
    )
    if not started.new and not visibility.sees(started.run):
        raise DuplicateKeyError("A run that you may not see has this key.")
    run = lookup.present(actor, started.run)
    return Status(201 if started.new else 200, run)


@router.post(
    "/runs/bulk",
    auth=authenticators(with_permission(*(one.permission for one in ACTIONS.values()))),
    response=responses({202: Job}, 409, 415),
)
def act_on_runs(request: HttpRequest, payload: BulkIn) -> Any:
    """Act on all runs that match a filter, in a bulk run that records the results."""
    actor = actor_with(request, ACTIONS[payload.action].permission)
    chosen = lookup.chosen(actor, payload.filter)
    return Status(
        202, {"run": bulk.begin(actor, payload.action, chosen, payload.reason)}
    )


def _add_action(action: str, description: str) -> None:
    """Add the endpoint of an action that takes only a reason."""

    def endpoint(
        request: HttpRequest, run_id: UUID, payload: ReasonIn | None = None
    ) -> Any:
        return _act(request, action, run_id, payload)

    # The OpenAPI description uses both.
    endpoint.__name__, endpoint.__doc__ = f"{action}_run", description
    path = f"/runs/{{uuid:run_id}}/{action}"
    router.post(path, auth=_on_run(action), response=_DONE)(endpoint)


for _action, _description in {
    "cancel": "Cancel a live run.",
    "pause": "Pause a run: no further step starts until you resume the run.",
    "resume": "Resume a paused run.",
    "retry": "Retry now, if the run waits for its next attempt.",
    "wake": "End the sleeps or the delay of a run now.",
    "redrive": "Continue a failed or cancelled run from where it ended.",
}.items():
    _add_action(_action, _description)


@router.post(
    "/runs/{uuid:run_id}/rerun", auth=_on_run("rerun", "edit"), response=_CREATED
)
def rerun_run(
    request: HttpRequest, run_id: UUID, payload: RerunIn | None = None
) -> Any:
    """Start a new run from an ended one, optionally from a step or with other data."""
    given = payload or RerunIn()
    values: dict[str, Any] = {"from_step": given.from_step}
    if given.data is None:
        return Status(201, _act(request, "rerun", run_id, given, **values))
    values["data"] = given.data
    return Status(201, _act(request, "edit", run_id, given, **values))


@router.post("/runs/{uuid:run_id}/answer", auth=_on_run("answer"), response=_DONE)
def answer_run(request: HttpRequest, run_id: UUID, payload: AnswerIn) -> Any:
    """Complete a waiting step with a value."""
    values = {"step": payload.step, "value": payload.value}
    return _act(request, "answer", run_id, payload, **values)


def _act(
    request: HttpRequest,
    action: str,
    run_id: UUID,
    given: ReasonIn | None,
    **values: Any,
) -> dict[str, Any]:
    actor, run = lookup.run(request, run_id, ACTIONS[action].permission)
    reason = given.reason if given else ""
    try:
        done = act(actor, action, run, reason=reason, **values)
    except UnknownFunction as error:
        # The run exists, but its function is not deployed: 409 instead of 404.
        raise ActionNotAllowed(error.message) from None
    new = None if done.run is None else lookup.present(actor, done.run)
    return {"run": lookup.present(actor, run), "new_run": new}


def _after(given: float | str | None) -> Duration | datetime | None:
    """Return a delay, or the time that a string holds."""
    if not isinstance(given, str):
        return given
    try:
        moment = parse_datetime(given)
    except ValueError:
        moment = None
    if moment is None:
        return given
    if timezone.is_naive(moment) or not FIRST_YEAR <= moment.year <= LAST_YEAR:
        msg = "Expected run_after to be a time with a time zone, from 1970 to 9000."
        raise Problem(422, "invalid", msg)
    return moment
