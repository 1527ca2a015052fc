"""Complete callbacks, by signed tokens that name a run and its step."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.core.signing import BadSignature, Signer

from durable_jobs import clock, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.error_text import storable_text
from durable_jobs.exceptions import CallbackClosed
from durable_jobs.models import Wait, WaitKind
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import StepStatus
from durable_jobs.store import db, waits
from durable_jobs.store.waits import WaitOutcome

_SALT = "durable_jobs.callback"


def token(run_id: uuid.UUID, step: str) -> str:
    """Return the token of a step: always the same, and unguessable."""
    return Signer(salt=_SALT).sign(f"{run_id.hex}-{step}")


def complete(text: str, *, data: Any, error: dict[str, Any] | None) -> None:
    """Complete or fail the wait of a token; raise ``CallbackClosed`` without one."""
    outcome = _outcome(data, error)
    wait = _wait(text)
    now = clock.now()
    run = waits.resolve(wait, outcome, happened_at=now) if wait is not None else None
    if run is None:
        raise CallbackClosed
    notifier.notify(run.queue)


def check(text: str) -> None:
    """Raise ``CallbackClosed`` unless a run waits for this callback."""
    if _wait(text) is None:
        raise CallbackClosed


def _outcome(data: Any, error: dict[str, Any] | None) -> WaitOutcome:
    if error is None:
        encoded = serialization.dumps(
            data,
            what="the data of a callback",
            limit=settings.MAX_STEP_BYTES,
            limit_setting="MAX_STEP_BYTES",
        )
        return WaitOutcome(StepStatus.COMPLETED, output=EncodedJSON(encoded))
    return WaitOutcome(
        StepStatus.FAILED,
        error={
            "type": str(error.get("type", "CallbackFailed"))[:255],
            "message": storable_text(str(error.get("message", ""))),
            "raise": "CallbackFailed",
        },
    )


def heartbeat(text: str) -> None:
    """Extend the heartbeat timeout of a wait; raise ``CallbackClosed`` without one."""
    wait = _wait(text)
    if wait is None:
        raise CallbackClosed
    timeouts = db.rows(Wait).filter(
        run_id=wait.run_id, step=wait.step, kind=WaitKind.TIMEOUT, name="heartbeat"
    )
    for timeout in timeouts:
        seconds = (timeout.condition or {})["seconds"]
        due = clock.now() + timedelta(seconds=seconds)
        timeouts.filter(pk=timeout.pk).update(due_at=due)


def _wait(text: str) -> Wait | None:
    try:
        value = Signer(salt=_SALT).unsign(text)
    except (BadSignature, TypeError, AttributeError):
        msg = "Expected the token that submit() received."
        raise CallbackClosed(msg) from None
    run_id, _, step = value.partition("-")
    return waits.get(uuid.UUID(run_id), step, WaitKind.CALLBACK)
