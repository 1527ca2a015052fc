"""Endpoints for monitoring: liveness, readiness and metrics."""

from __future__ import annotations

import logging
from typing import Any

from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from ninja import Router, Status

from durable_jobs.api import metrics
from durable_jobs.api.auth import ReadyAuth, actor_with
from durable_jobs.api.problems import Problem, responses
from durable_jobs.api.schemas import HealthOut, Readiness
from durable_jobs.maintenance import doctor

logger = logging.getLogger("durable_jobs")

router = Router(tags=["probes"])


@router.get("/health", response={200: HealthOut}, auth=None)
def health(request: HttpRequest) -> Any:
    """Return 200 without a database query."""
    return {"status": "ok"}


@router.get(
    "/ready",
    response={**responses({200: Readiness}, open=True), 503: Readiness},
    auth=ReadyAuth(),
)
def ready(request: HttpRequest) -> Any:
    """Return whether runs are being processed. Returns 503 with the causes if not."""
    try:
        report = doctor.readiness()
    except DatabaseError:
        logger.exception("The database of the runs is unavailable.")
        cause = {"check": "database", "message": "The database is unavailable."}
        return Status(503, _readiness([cause]))
    found = [{"check": one.check, "message": one.message} for one in report.findings]
    return Status(503 if found else 200, _readiness(found, **report.figures))


@router.get(
    "/metrics",
    response=responses({200: str}, 501),
    openapi_extra={
        "responses": {
            200: {
                "description": "OK",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        }
    },
)
def get_metrics(request: HttpRequest) -> Any:
    """Return metrics in the Prometheus text format."""
    actor_with(request, "durable_jobs.view_worker")
    try:
        text = metrics.text()
    except ImportError:
        msg = "The metrics require prometheus-client: install durable-jobs[metrics]."
        raise Problem(501, "not-installed", msg) from None
    return HttpResponse(text, content_type=metrics.MEDIA_TYPE)


def _readiness(
    causes: list[dict[str, str]],
    last_tick_seconds: float | None = None,
    oldest_ready_seconds: float | None = None,
) -> dict[str, Any]:
    return {
        "status": "not ready" if causes else "ready",
        "last_tick_seconds": last_tick_seconds,
        "oldest_ready_seconds": oldest_ready_seconds,
        "causes": causes,
    }
