"""Endpoints that list declared functions."""

from __future__ import annotations

from typing import Any

from django.http import Http404, HttpRequest
from ninja import Router

from durable_jobs.api.auth import actor_with
from durable_jobs.api.problems import responses
from durable_jobs.api.schemas import FunctionOut, FunctionsOut
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import PACKAGE_PREFIX, registry
from durable_jobs.definitions.triggers import Cron, Event, ModelChange, Trigger
from durable_jobs.store import pauses

router = Router(tags=["functions"])

VIEW = "durable_jobs.view_run"


@router.get("/functions", response=responses({200: FunctionsOut}))
def list_functions(request: HttpRequest) -> Any:
    """List the declared functions, ordered by id."""
    actor_with(request, VIEW)
    paused = set(pauses.functions())
    known = sorted(registry, key=lambda function: function.id)
    return {"functions": [_present(one, one.id in paused) for one in known]}


@router.get("/functions/{function_id}", response=responses({200: FunctionOut}, 404))
def get_function(request: HttpRequest, function_id: str) -> Any:
    """Return a declared function."""
    actor_with(request, VIEW)
    function = registry.find(function_id)
    if function is None or function.id.startswith(PACKAGE_PREFIX):
        raise Http404
    return _present(function, pauses.functions().filter(name=function.id).exists())


def _present(function: Function, paused: bool) -> dict[str, Any]:
    names = ("id", "name", "description", "version", "queue", "retries")
    return {
        **{name: getattr(function, name) for name in names},
        "triggers": [_trigger(trigger) for trigger in function.triggers],
        "paused": paused,
    }


def _trigger(trigger: Trigger) -> dict[str, Any]:
    if isinstance(trigger, Event):
        condition = trigger.if_ if isinstance(trigger.if_, str) else None
        return {"kind": "event", "name": trigger.name, "if": condition}
    if isinstance(trigger, Cron):
        return {"kind": "cron", "cron": trigger.text, "tz": trigger.tz}
    if isinstance(trigger, ModelChange):
        names = ("created", "updated", "deleted")
        changes = [name for name in names if getattr(trigger, name)]
        return {"kind": "model", "model": trigger.model, "changes": changes}
    return {"kind": "webhook", "path": trigger.path}
