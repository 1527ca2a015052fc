"""What is recorded of a run, in the words of the app that is told."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db.models import Model

from durable_jobs import durable, serialization
from durable_jobs.definitions.events import CALLED, CRON
from durable_jobs.exceptions import NonRetriableError
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord

#: The kind of steps whose bodies the app runs.
RUNS = "run"
#: What the SDKs call the events that are our own.
EVENTS = {CALLED: "inngest/function.invoked", CRON: "inngest/scheduled.timer"}


def answer(memo: StepRecord) -> Any:
    """Return how a step ended."""
    if memo.status in (StepStatus.FAILED, StepStatus.CANCELLED):
        error = memo.error or {}
        said = {
            "name": str(error.get("type", "Error")),
            "message": str(error.get("message", "")),
            "stack": str(error.get("traceback", "")),
        }
        more = error.get("data")
        # Always with its data: in Go, an error without any cannot be read.
        return {
            "error": {"data": None, **(more if isinstance(more, dict) else {}), **said}
        }
    value = None if memo.output is None else serialization.loads(memo.output)
    if memo.kind == "wait_for_event" and isinstance(value, dict):
        return event(durable.ReceivedEvent(**value))
    if memo.kind in (RUNS, "invoke"):
        return {"data": _plain(value)}
    return None


def event(came: durable.ReceivedEvent) -> dict[str, Any]:
    """Return an event, its time in milliseconds."""
    ts: Any = came.ts  # of an event that was waited for, as it is recorded
    if not isinstance(ts, datetime):
        ts = datetime.fromisoformat(ts)
    said = {
        "id": came.id,
        "name": EVENTS.get(came.name, came.name),
        "data": _plain(came.data),
        "ts": int(ts.timestamp() * 1000),
    }
    if came.user is not None:
        said["user"] = _plain(came.user)
    return said | ({} if came.v is None else {"v": came.v})


class _Plain(DjangoJSONEncoder):
    """What JSON has no word for: a model instance as its model and key."""

    def default(self, o: Any) -> Any:
        if isinstance(o, Model):
            return {"model": o._meta.label_lower, "pk": o.pk}
        if hasattr(o, "model_dump"):
            return o.model_dump(mode="json")
        return super().default(o)


def _plain(value: Any) -> Any:
    """Return a value as plain JSON has it; raise ``NonRetriableError`` where that
    cannot.
    """
    try:
        return json.loads(json.dumps(value, cls=_Plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        msg = f"A value of the run is not one that JSON has: {error}"
        raise NonRetriableError(msg) from None
