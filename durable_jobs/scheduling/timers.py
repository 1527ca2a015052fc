"""Waits whose time has come."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

from durable_jobs import clock, dispatch
from durable_jobs.events import ending, model_waits
from durable_jobs.failpoints import hit
from durable_jobs.models import Run, Wait, WaitKind
from durable_jobs.statuses import StepStatus
from durable_jobs.store import awaited, db, repairs, waits
from durable_jobs.store.waits import Outcome

logger = logging.getLogger("durable_jobs")

BATCH = 500
#: Seconds after which a sweep leaves the rest to the next one.
LONGEST = 1.0
#: For how long a wait that could not be ended is left out of the others' way.
PUT_OFF = timedelta(seconds=10)


def sweep() -> int:
    """End the waits that are due; return how many were.

    However many there are, it lets the process go on with other work after a moment:
    the next tick continues. So it does where another sweeper has these in its hands.
    """
    total, until = 0, clock.monotonic() + LONGEST
    while True:
        ended = end_due(BATCH)
        total += ended
        if ended < BATCH or clock.monotonic() > until:
            return total


def end_due(limit: int, own: str | None = None) -> int:
    """End up to ``limit`` waits that are due; return how many were.

    The queues of the runs that wake are rung, but for the caller's ``own``.
    """
    hit("timers.read")
    runs, others = waits.expire(limit, _ENDS)
    if runs:
        hit("timers.committed")
    woken = Counter(run.queue for run in runs)
    for queue in woken.keys() - {own}:
        dispatch.ring(queue, woken[queue])
    for wait in others:
        _one(wait)
    return len(runs) + len(others)


def _one(wait: Wait) -> None:
    """End one wait; a failure here must not keep the others from their end."""
    try:
        _ENDS[WaitKind(wait.kind)](wait)
    except Exception:  # one broken row must not stop the clock for all
        logger.exception("Could not end wait %s of run %s.", wait.pk, wait.run_id)
        waits.put_off(wait, clock.now() + PUT_OFF)


def _timeout(wait: Wait) -> None:
    condition = wait.condition or {}
    error = condition.get("error")
    if error is None:
        outcome = Outcome(StepStatus.TIMED_OUT, output=condition.get("output"))
    else:
        outcome = Outcome(StepStatus.FAILED, error=error)
    run = waits.resolve(wait, outcome)
    if run is not None:
        dispatch.ring(run.queue)


def _look(wait: Wait) -> None:
    model_waits.look_again(wait)


def _child(wait: Wait) -> None:
    """Give a step the end of a run that it joined, or look again later."""
    run = repairs.resolve_child(wait)
    if run is not None:
        dispatch.ring(run.queue)
    else:
        waits.put_off(wait, awaited.next_look(wait.created_at))


def _start_by(wait: Wait) -> None:
    run = _run(wait)
    if run is not None and run.started_at is None:
        ending.cancel(run, "It was not started in time (timeouts.start).")
    Wait.objects.using(db.alias()).filter(pk=wait.pk)._raw_delete(db.alias())


def _finish_by(wait: Wait) -> None:
    """Cancel a run that takes too long; its time in the queue does not count."""
    run, rows = _run(wait), Wait.objects.using(db.alias()).filter(pk=wait.pk)
    if run is not None:
        now = clock.now()
        length = timedelta(seconds=(wait.condition or {}).get("seconds", 0))
        # A run that was redriven began anew when this wait was made.
        began = now if run.started_at is None else max(run.started_at, wait.created_at)
        if began + length > now:
            rows.update(due_at=began + length)
            return
        ending.cancel(run, "It did not end in time (timeouts.finish).")
    rows._raw_delete(db.alias())


def _run(wait: Wait) -> Run | None:
    return Run.objects.using(db.alias()).filter(pk=wait.run_id).first()


_ENDS: dict[WaitKind, Callable[[Wait], None]] = {
    WaitKind.TIMEOUT: _timeout,
    WaitKind.MODEL: _look,
    WaitKind.EVENT: _look,
    WaitKind.CHILD: _child,
    WaitKind.START_BY: _start_by,
    WaitKind.FINISH_BY: _finish_by,
}
