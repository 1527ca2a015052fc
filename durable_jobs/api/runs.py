"""Endpoints that read runs and steps."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest
from ninja import Query, Router, Status

from durable_jobs.api import cursors, long_poll, lookup
from durable_jobs.api.auth import actor_with
from durable_jobs.api.problems import responses
from durable_jobs.api.schemas import (
    Pending,
    Result,
    RunDetail,
    RunOut,
    RunsOut,
    RunsQuery,
    StepDetail,
    StepOut,
    StepsOut,
    TraceOut,
)
from durable_jobs.control.actor import Actor
from durable_jobs.models import Run
from durable_jobs.queries import run_rows
from durable_jobs.queries.timeline import TimelineRow, timeline
from durable_jobs.queries.visibility import masked
from durable_jobs.statuses import LIVE

router = Router(tags=["runs"])

VIEW = "durable_jobs.view_run"
PAYLOAD = "durable_jobs.view_payload"


@router.get("/runs", response=responses({200: RunsOut}))
def list_runs(request: HttpRequest, query: Query[RunsQuery]) -> Any:
    """List runs, newest first, with the filters of the admin."""
    actor = actor_with(request, VIEW)
    below = cursors.run(query.cursor)
    chosen = lookup.chosen(actor, lookup.params(request))
    runs, last = run_rows.runs_page(chosen, query.limit, below)
    return {"runs": lookup.present_all(actor, runs), "next": cursors.of_run(last)}


@router.get("/runs/{uuid:run_id}", response=responses({200: RunDetail}, 404))
def get_run(request: HttpRequest, run_id: UUID) -> Any:
    """Return a run. Payloads need the ``view_payload`` permission."""
    actor, run = lookup.run(request, run_id, VIEW)
    payloads = _payloads(actor, run, "data", "output")
    return {**RunOut.from_orm(lookup.present(actor, run)).dict(), **payloads}


@router.get("/runs/{uuid:run_id}/trace", response=responses({200: TraceOut}, 404))
def get_trace(request: HttpRequest, run_id: UUID) -> Any:
    """Return a run's timeline. Each step follows its parent step."""
    actor, run = lookup.run(request, run_id, VIEW)
    show_payloads = actor.may(PAYLOAD, run)
    steps = [_row(row, show_payloads) for row in timeline(run)]
    return {"run": lookup.present(actor, run), "steps": steps}


@router.get("/runs/{uuid:run_id}/steps", response=responses({200: StepsOut}, 404))
def list_steps(request: HttpRequest, run_id: UUID) -> Any:
    """List a run's steps in recorded order."""
    _who, run = lookup.run(request, run_id, VIEW)
    return {"steps": run_rows.steps(run)}


@router.get(
    "/runs/{uuid:run_id}/steps/{key}", response=responses({200: StepDetail}, 404)
)
def get_step(request: HttpRequest, run_id: UUID, key: str) -> Any:
    """Return a step by its key. Payloads need the ``view_payload`` permission."""
    actor, run = lookup.run(request, run_id, VIEW)
    step = run_rows.step(run, key) if "\x00" not in key else None
    if step is None:
        raise Http404
    show_payloads = actor.may(PAYLOAD, run)
    names = ("input", "output", "detail", "logs")
    stored = run_rows.payloads(step, (*names, "error") if show_payloads else ("error",))
    return {
        **StepOut.from_orm(step).dict(),
        "hidden": not show_payloads,
        **{name: stored.get(name) for name in names},
        "error": masked(stored["error"], show_payloads),
        "attempts": [
            {
                "number": one.number,
                "error": masked(one.error, show_payloads),
                "logs": one.logs if show_payloads else None,
                "started_at": one.started_at,
                "ended_at": one.ended_at,
            }
            for one in run_rows.attempts(step)
        ],
    }


@router.get(
    "/runs/{uuid:run_id}/result", response=responses({200: Result, 202: Pending}, 404)
)
def get_result(request: HttpRequest, run_id: UUID, wait: long_poll.Seconds = 0) -> Any:
    """Return a run's result. Returns 202 if it has not ended after ``wait`` seconds."""
    actor, run = lookup.run(request, run_id, VIEW)
    long_poll.wait(run, wait)
    if run.status in LIVE:
        return Status(202, {"id": run.pk, "status": run.status})
    known = {"id": run.pk, "status": run.status, "reason": run.reason}
    return Status(200, {**known, **_payloads(actor, run, "output")})


def _payloads(actor: Actor, run: Run, *names: str) -> dict[str, Any]:
    """Return a run's payloads that the actor may see."""
    show_payloads = actor.may(PAYLOAD, run)
    stored = run_rows.payloads(run, (*names, "error") if show_payloads else ("error",))
    return {
        "hidden": not show_payloads,
        "error": masked(stored["error"], show_payloads),
        **{name: stored.get(name) for name in names},
    }


def _row(row: TimelineRow, show_payloads: bool) -> dict[str, Any]:
    names = ("key", "name", "kind", "status", "depth", "attempt")
    times = ("due_at", "started_at", "ended_at")
    return {
        **{name: getattr(row, name) for name in (*names, *times)},
        "offset": None if row.offset is None else row.offset.total_seconds(),
        "length": None if row.length is None else row.length.total_seconds(),
        "error": masked(row.error, show_payloads),
    }
