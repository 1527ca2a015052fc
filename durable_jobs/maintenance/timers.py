"""End waits whose time has come.

Due waits end in the order in which they happened, even after an outage. Before a wait
or run ends by its time, the events that arrived earlier are routed.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from functools import partial

from durable_jobs import clock, notifier
from durable_jobs.events import model_waits, routing
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import finish
from durable_jobs.models import Run, Wait, WaitKind
from durable_jobs.statuses import StepStatus
from durable_jobs.store import awaited_runs, db, events, item_errors, repairs, waits
from durable_jobs.store.waits import WaitOutcome

logger = logging.getLogger("durable_jobs")

BATCH = 500
#: Seconds after which a sweep leaves the rest to the next sweep.
LONGEST = 1.0
#: Waits that end by time; earlier events are routed before them.
BY_TIME = frozenset({WaitKind.TIMEOUT, WaitKind.START_BY, WaitKind.FINISH_BY})


def sweep() -> int:
    """End the waits that are due; return how many.

    After a second the sweep leaves the rest to the next tick. It also stops if another
    sweeper has locked the waits.
    """
    total, until = 0, clock.monotonic() + LONGEST
    while True:
        ended = end_due(BATCH)
        total += ended
        if ended < BATCH or clock.monotonic() > until:
            return total


def end_due(limit: int, notified: str | None = None) -> int:
    """End up to ``limit`` due waits; return how many.

    Notify the queues of the runs that wake, except ``notified``, which is served now.
    """
    failpoint("timers.read")
    try:
        runs, others = waits.expire(limit, _END_ACTIONS)
    except Exception as error:
        if db.is_outage(error):
            raise
        logger.exception("A batch of timers failed. Retrying them one by one.")
        runs, others = _one_by_one(limit)
    if runs:
        failpoint("timers.committed")
    woken = Counter(run.queue for run in runs)
    for queue in woken.keys() - {notified}:
        notifier.notify(queue, woken[queue])
    others = _in_order(others)
    for wait in others:
        _guarded(wait, partial(_END_ACTIONS[WaitKind(wait.kind)], wait))
    return len(runs) + len(others)


def _one_by_one(limit: int) -> tuple[list[Run], list[Wait]]:
    """End sleeps and retries in one transaction each; postpone those that fail."""
    found = waits.due(limit, _END_ACTIONS)
    runs: list[Run] = []
    for wait in found:
        if wait.kind in waits.WAKING:
            _guarded(wait, partial(_wake, wait, runs))
    return runs, [wait for wait in found if wait.kind not in waits.WAKING]


def _wake(wait: Wait, runs: list[Run]) -> None:
    runs += waits.end_timers([wait])


def _guarded(wait: Wait, work: Callable[[], object]) -> None:
    item_errors.guarded(
        "wait",
        wait.pk,
        work,
        postpone=partial(waits.postpone, wait),
        run_id=wait.run_id,
    )


def _in_order(found: list[Wait]) -> list[Wait]:
    """Return the waits that may end now: no earlier event is unrouted."""
    by_time = [wait for wait in found if wait.kind in BY_TIME]
    if not by_time or events.earliest_unrouted() is None:
        return found
    routing.route()
    earliest = events.earliest_unrouted()
    if earliest is None:
        return found
    return [
        wait
        for wait in found
        if wait.kind not in BY_TIME or wait.due_at is None or wait.due_at < earliest
    ]


def _timeout(wait: Wait) -> None:
    condition = wait.condition or {}
    error = condition.get("error")
    if error is None:
        outcome = WaitOutcome(StepStatus.TIMED_OUT, output=condition.get("output"))
    else:
        outcome = WaitOutcome(StepStatus.FAILED, error=error)
    run = waits.resolve(wait, outcome)
    if run is not None:
        notifier.notify(run.queue)


def _check_again(wait: Wait) -> None:
    model_waits.check_again(wait)


def _check_child(wait: Wait) -> None:
    """Give a step the outcome of a run that it joined, or check again later."""
    run = repairs.resolve_child(wait)
    if run is not None:
        notifier.notify(run.queue)
    else:
        waits.postpone(wait, awaited_runs.next_check(wait.created_at))


def _start_by(wait: Wait) -> None:
    run = _run(wait)
    if run is not None and run.started_at is None:
        finish.cancel(run, "It was not started in time (timeouts.start).")
    db.rows(Wait).filter(pk=wait.pk)._raw_delete(db.alias())


def _finish_by(wait: Wait) -> None:
    """Cancel a run that takes too long; its time in the queue does not count."""
    run, rows = _run(wait), db.rows(Wait).filter(pk=wait.pk)
    if run is not None:
        now = clock.now()
        length = timedelta(seconds=(wait.condition or {}).get("seconds", 0))
        # A redriven run starts anew when this wait is created.
        began = now if run.started_at is None else max(run.started_at, wait.created_at)
        if began + length > now:
            rows.update(due_at=began + length)
            return
        finish.cancel(run, "It did not end in time (timeouts.finish).")
    rows._raw_delete(db.alias())


def _run(wait: Wait) -> Run | None:
    return db.rows(Run).filter(pk=wait.run_id).first()


_END_ACTIONS: dict[WaitKind, Callable[[Wait], None]] = {
    WaitKind.TIMEOUT: _timeout,
    WaitKind.MODEL: _check_again,
    WaitKind.EVENT: _check_again,
    WaitKind.CHILD: _check_child,
    WaitKind.START_BY: _start_by,
    WaitKind.FINISH_BY: _finish_by,
}
