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
    who = actor_with(request, VIEW)
    below = cursors.run(query.cursor)
    chosen = lookup.chosen(who, lookup.params(request))
    runs, last = run_rows.runs_page(chosen, query.limit, below)
    return {"runs": lookup.present_all(who, runs), "next": cursors.of_run(last)}


@router.get("/runs/{uuid:run_id}", response=responses({200: RunDetail}, 404))
def get_run(request: HttpRequest, run_id: UUID) -> Any:
    """Return a run. Payloads need the ``view_payload`` permission."""
    who, run = lookup.run(request, run_id, VIEW)
    payloads = _payloads(who, run, "data", "output")
    return {**RunOut.from_orm(lookup.present(who, run)).dict(), **payloads}


@router.get("/runs/{uuid:run_id}/trace", response=responses({200: TraceOut}, 404))
def get_trace(request: HttpRequest, run_id: UUID) -> Any:
    """Return a run's timeline. Each step follows its parent step."""
    who, run = lookup.run(request, run_id, VIEW)
    sees = who.may(PAYLOAD, run)
    steps = [_row(row, sees) for row in timeline(run)]
    return {"run": lookup.present(who, run), "steps": steps}


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
    who, run = lookup.run(request, run_id, VIEW)
    step = run_rows.step(run, key) if "\x00" not in key else None
    if step is None:
        raise Http404
    sees = who.may(PAYLOAD, run)
    names = ("input", "output", "detail", "logs")
    stored = run_rows.payloads(step, (*names, "error") if sees else ("error",))
    return {
        **StepOut.from_orm(step).dict(),
        "hidden": not sees,
        **{name: stored.get(name) for name in names},
        "error": masked(stored["error"], sees),
        "attempts": [
            {
                "number": one.number,
                "error": masked(one.error, sees),
                "logs": one.logs if sees else None,
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
    who, run = lookup.run(request, run_id, VIEW)
    long_poll.wait(run, wait)
    if run.status in LIVE:
        return Status(202, {"id": run.pk, "status": run.status})
    known = {"id": run.pk, "status": run.status, "reason": run.reason}
    return Status(200, {**known, **_payloads(who, run, "output")})


def _payloads(who: Actor, run: Run, *names: str) -> dict[str, Any]:
    """Return a run's payloads that the actor may see."""
    sees = who.may(PAYLOAD, run)
    stored = run_rows.payloads(run, (*names, "error") if sees else ("error",))
    return {
        "hidden": not sees,
        "error": masked(stored["error"], sees),
        **{name: stored.get(name) for name in names},
    }


def _row(row: TimelineRow, sees: bool) -> dict[str, Any]:
    names = ("key", "name", "kind", "status", "depth", "attempt")
    times = ("due_at", "started_at", "ended_at")
    return {
        **{name: getattr(row, name) for name in (*names, *times)},
        "offset": None if row.offset is None else row.offset.total_seconds(),
        "length": None if row.length is None else row.length.total_seconds(),
        "error": masked(row.error, sees),
    }
