"""Endpoints that complete callbacks, authenticated by their signed token."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router, Status

from durable_jobs.api.auth import CallbackAuth
from durable_jobs.api.problems import responses
from durable_jobs.api.schemas import FailIn, SucceedIn
from durable_jobs.definitions import callbacks

router = Router(tags=["callbacks"], auth=CallbackAuth())

_RESPONSES = responses({204: None}, 410, 415, open=True)


@router.post("/callbacks/{token}/succeed", response=_RESPONSES)
def succeed(request: HttpRequest, token: str, payload: SucceedIn | None = None) -> Any:
    """Complete a callback with data. Returns 410 if the callback is closed."""
    callbacks.succeed(token, payload.data if payload else None)
    return Status(204, None)


@router.post("/callbacks/{token}/fail", response=_RESPONSES)
def fail(request: HttpRequest, token: str, payload: FailIn | None = None) -> Any:
    """Fail a callback. Returns 410 if the callback is closed."""
    given = payload or FailIn()
    callbacks.fail(token, given.message, error_type=given.error_type)
    return Status(204, None)


@router.post("/callbacks/{token}/heartbeat", response=_RESPONSES)
def heartbeat(request: HttpRequest, token: str) -> Any:
    """Extend a callback's heartbeat timeout. Returns 410 if the callback is closed."""
    callbacks.heartbeat(token)
    return Status(204, None)
