"""Retry the failed events of a batch separately from the others."""

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

InTransaction = Callable[[], None]


def event_count(run: Run) -> int:
    """Return the number of events in the batch of a run."""
    return int((run.event_meta or {}).get(event_windows.COUNT, 0))


def failed_batches(run: Run) -> int:
    """Return how many batches before this one have returned these events as failed."""
    return int((run.event_meta or {}).get("attempt", 0))


def partial_failure(
    state: AttemptState, failures: BatchFailures
) -> tuple[dict[str, Any], str, InTransaction]:
    """Return the output and the reason of a batch that failed in part.

    The third value starts the run of the failed events; call it when the run ends.
    """
    events = event_windows.events_of(state.run)
    failed_ids = set(failures.ids)
    chosen = [one for one in events if one.event_id in failed_ids]
    unknown = sorted(failed_ids - {one.event_id for one in events})
    output: dict[str, Any] = {"failed": [one.event_id for one in chosen]}
    reason = ""
    if unknown:
        output["unknown"] = unknown
        reason = f"BatchFailures names events outside the batch: {unknown}"[:1000]
        logger.warning("Run %s of %s: %s", state.run.pk, state.run.function, reason)
    return output, reason, lambda: _restart(state, chosen)


def _restart(state: AttemptState, events: Sequence[BufferedEvent]) -> None:
    """Start a run for failed events, or record it as failed if no retry is left."""
    if not events:
        return
    function, failures = state.function, failed_batches(state.run)
    now = clock.now()
    if failures < function.retries:
        error = RuntimeError("The batch returned the event as failed.")
        due = now + function.backoff.delay(failures, error)
        _start(state, events, due, failures + 1)
        return
    made = _start(state, events, now, failures + 1)
    message = (
        f"{failures + 1} batches in a row returned {len(events)} events as failed; the "
        f"last batch was run {state.run.pk}."
    )
    error_record = {"type": "BatchFailed", "message": message, "traceback": ""}
    finish.finish(made, End(RunStatus.FAILED, error=error_record))


def split(state: AttemptState) -> tuple[str, InTransaction] | None:
    """Return how to retry a batch that failed as a whole: as two runs of half the size.

    This isolates the event that makes the batch fail. Return None for a batch of one
    event. The halves have one attempt each: the batch has used all retries.
    """
    if event_count(state.run) < 2 or state.function.flow_control.batch is None:
        return None
    events = window_rows.events_of_run(state.run.pk)
    if len(events) < 2:
        return None
    middle = len(events) // 2
    parts = [events[:middle], events[middle:]]
    reason = f"Its {len(events)} events continue in two runs, to find the failing one."

    def in_transaction() -> None:
        for part in parts:
            _start(
                state, part, clock.now(), failed_batches(state.run), last_attempt=True
            )

    return reason, in_transaction


def _start(
    state: AttemptState,
    events: Sequence[BufferedEvent],
    due_at: datetime,
    failures: int,
    *,
    last_attempt: bool = False,
) -> Run:
    start = event_windows.new_run(state.function, events)
    made = NewRun(
        function=start.function,
        data=start.data,
        event_meta={**start.event_meta, "attempt": failures},
        due_at=due_at,
        event_id=start.event_id,
        parent=state.run,
        parent_relation=BATCH,
        subjects=start.subjects,
        failure_count=state.function.retries if last_attempt else 0,
    )
    run = start_runs.start([made])[0]
    window_rows.copy(events, run.pk)
    return run
