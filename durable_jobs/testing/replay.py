"""Start a run from the recorded history of another run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from durable_jobs import clock, ids
from durable_jobs.definitions.registry import registry
from durable_jobs.exceptions import ConfigurationError
from durable_jobs.lifecycle import run_event, start
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.models import Run, Step
from durable_jobs.serialization.stored import EncodedJSON
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.store import db, runs


def begin(history: Mapping[str, Any]) -> Run:
    """Queue a run with the ended steps of a history. Open steps start again."""
    try:
        function = registry.get(history["function"])
        data, steps, trigger = history["data"], history["steps"], history["trigger"]
    except (KeyError, TypeError):
        msg = (
            "Expected the history of a run from its page in the admin, with "
            "function, trigger, data and steps."
        )
        raise ConfigurationError(msg) from None
    now = clock.now()
    made = NewRun(
        function=function,
        data=json.dumps({} if data is None else data),
        event_meta=history.get("event_meta")
        or run_event.build_event_meta(trigger, now),
        due_at=now,
        id=ids.new_id(),
        parent_relation=runs.RERUN,  # it has steps before its first attempt
    )
    with db.atomic():
        run = start.start([made])[0]
        db.rows(Step).bulk_create(_rows(run, steps))
    return run


def _rows(run: Run, steps: list[Mapping[str, Any]]) -> Iterator[Step]:
    known = {step["key"] for step in steps if step["status"] in STEP_ENDED}
    for step in steps:
        if step["key"] not in known:
            continue
        parent, ended = step["parent"], step["ended_at"]
        given, output = step.get("input"), step["output"]
        has = output is not None or step["status"] == "completed"
        yield Step(
            id=ids.step_pk(run.pk, step["key"]),
            run_id=run.pk,
            key=step["key"],
            name=step["name"],
            kind=step["kind"],
            status=step["status"],
            position=step["position"],
            attempt=step["attempt"],
            error=step["error"],
            detail=step["detail"],
            parent_id=ids.step_pk(run.pk, parent) if parent else None,
            input=None if given is None else EncodedJSON(json.dumps(given)),
            output=EncodedJSON(json.dumps(output)) if has else None,
            started_at=_time(step["started_at"]),
            ended_at=_time(ended),
        )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
