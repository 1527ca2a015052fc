"""Batches: the events that a run could not do come again, apart from the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from durable_jobs import clock
from durable_jobs.definitions.flow_control import BatchFailures
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.lifecycle import event_windows, finish
from durable_jobs.lifecycle import start as start_runs
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.models import BufferedEvent, Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import event_windows as window_rows
from durable_jobs.store.runs import BATCH, End

logger = logging.getLogger("durable_jobs")

Along = Callable[[], None]


def count(run: Run) -> int:
    """Return how many events were gathered for a run."""
    return int((run.event_meta or {}).get(event_windows.COUNT, 0))


def attempt_of(run: Run) -> int:
    """Return how many batches have given the events of a run back."""
    return int((run.event_meta or {}).get("attempt", 0))


def given_back(
    state: AttemptState, failures: BatchFailures
) -> tuple[dict[str, Any], str, Along]:
    """Return the output and the reason of a batch that has failed in part.

    And what is one with its end: the run of those that failed.
    """
    events = event_windows.events_of(state.run)
    wanted = set(failures.ids)
    chosen = [one for one in events if one.event_id in wanted]
    strange = sorted(wanted - {one.event_id for one in events})
    output: dict[str, Any] = {"failed": [one.event_id for one in chosen]}
    reason = ""
    if strange:
        output["unknown"] = strange
        reason = f"BatchFailures named events that the batch has not: {strange}"[:1000]
        logger.warning("Run %s of %s: %s", state.run.pk, state.run.function, reason)
    return output, reason, lambda: _again(state, chosen)


def _again(state: AttemptState, events: Sequence[BufferedEvent]) -> None:
    """Start a run for events that failed, or record it as failed at once."""
    if not events:
        return
    function, attempt = state.function, attempt_of(state.run)
    now = clock.now()
    if attempt < function.retries:
        error = RuntimeError("The batch gave it back.")
        due = now + function.backoff.delay(attempt, error)
        _start(state, events, due, attempt + 1)
        return
    made = _start(state, events, now, attempt + 1)
    message = (
        f"{attempt + 1} batches in a row have given back {len(events)} of their "
        f"events, the last of them run {state.run.pk}."
    )
    error_record = {"type": "BatchFailed", "message": message, "traceback": ""}
    finish.finish(made, End(RunStatus.FAILED, error=error_record))


def halves(state: AttemptState) -> tuple[str, Along] | None:
    """Return how a batch that failed as a whole goes on: in two runs.

    So the event that makes it fail is found, and the others are done. None when there
    is only one. Each half has one attempt: the whole has used its retries.
    """
    if count(state.run) < 2 or state.function.controls.batch is None:
        return None
    events = window_rows.of_run(state.run.pk)
    if len(events) < 2:
        return None
    middle = len(events) // 2
    parts = [events[:middle], events[middle:]]
    reason = f"Its {len(events)} events go on in two runs, to find the one that fails."

    def along() -> None:
        for part in parts:
            _start(state, part, clock.now(), attempt_of(state.run), once=True)

    return reason, along


def _start(
    state: AttemptState,
    events: Sequence[BufferedEvent],
    due_at: datetime,
    attempt: int,
    *,
    once: bool = False,
) -> Run:
    start = event_windows.start_for(state.function, events)
    made = NewRun(
        function=start.function,
        data=start.data,
        event_meta={**start.event_meta, "attempt": attempt},
        due_at=due_at,
        event_id=start.event_id,
        parent=state.run,
        parent_relation=BATCH,
        subjects=start.subjects,
        attempt=state.function.retries if once else 0,
    )
    run = start_runs.start([made])[0]
    window_rows.copy(events, run.pk)
    return run
