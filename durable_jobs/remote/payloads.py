"""Recorded steps and events in the JSON format of the Inngest SDKs."""

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
#: The SDKs' names of this package's own events.
EVENTS = {CALLED: "inngest/function.invoked", CRON: "inngest/scheduled.timer"}


def step_result(record: StepRecord) -> Any:
    """Return the result or the error of an ended step."""
    if record.status in (StepStatus.FAILED, StepStatus.CANCELLED):
        error = record.error or {}
        fields = {
            "name": str(error.get("type", "Error")),
            "message": str(error.get("message", "")),
            "stack": str(error.get("traceback", "")),
        }
        more = error.get("data")
        # Always with data, since the Go SDK cannot read an error without it.
        return {
            "error": {
                "data": None,
                **(more if isinstance(more, dict) else {}),
                **fields,
            }
        }
    value = None if record.output is None else serialization.loads(record.output)
    if record.kind == "wait_for_event" and isinstance(value, dict):
        return event(durable.ReceivedEvent(**value))
    if record.kind in (RUNS, "invoke"):
        return {"data": _plain(value)}
    return None


def event(received: durable.ReceivedEvent) -> dict[str, Any]:
    """Return an event, with its time in milliseconds."""
    ts: Any = received.ts  # a string if the event was recorded by a wait
    if not isinstance(ts, datetime):
        ts = datetime.fromisoformat(ts)
    fields = {
        "id": received.id,
        "name": EVENTS.get(received.name, received.name),
        "data": _plain(received.data),
        "ts": int(ts.timestamp() * 1000),
    }
    if received.user is not None:
        fields["user"] = _plain(received.user)
    return fields | ({} if received.v is None else {"v": received.v})


class _Plain(DjangoJSONEncoder):
    """Encodes values without a JSON form: a model instance as its model and key."""

    def default(self, o: Any) -> Any:
        if isinstance(o, Model):
            return {"model": o._meta.label_lower, "pk": o.pk}
        if hasattr(o, "model_dump"):
            return o.model_dump(mode="json")
        return super().default(o)


def _plain(value: Any) -> Any:
    """Return a value as plain JSON. Raise ``NonRetriableError`` if that fails."""
    try:
        return json.loads(json.dumps(value, cls=_Plain, allow_nan=False))
    except (TypeError, ValueError) as error:
        msg = f"A value of the run has no JSON form: {error}"
        raise NonRetriableError(msg) from None
