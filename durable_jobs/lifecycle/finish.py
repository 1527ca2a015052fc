"""End a run: start its handler, resume its parent and notify the queues."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from durable_jobs import clock, notifier, serialization
from durable_jobs.definitions.events import RUN_ENDED
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import causation, run_log
from durable_jobs.lifecycle.run_event import build_event_meta, lenient_event_of
from durable_jobs.lifecycle.start import NewRun
from durable_jobs.models import Run, SweepError
from durable_jobs.serialization.stored import StoredPayload
from durable_jobs.signals import announce, run_changed, run_created
from durable_jobs.statuses import RunStatus
from durable_jobs.store import awaited_runs, db, left_work, runs, schedules
from durable_jobs.store.leases import Lease
from durable_jobs.store.runs import HANDLER, INVOKE, End

logger = logging.getLogger("durable_jobs")


def finish(
    run: Run,
    end: End,
    lease: Lease | None = None,
    *,
    standalone: bool = False,
    in_transaction: Callable[[], None] | None = None,
    start_handler: bool = True,
) -> bool:
    """End a run; return whether this call did.

    ``standalone``: no other rows refer to the run. ``in_transaction`` is called in the
    same transaction. Without ``start_handler``, no handler starts.
    """
    function = registry.find(run.function)
    simple = function is not None and _handler(function, end.status) is None
    failpoint("finish.begin", run.function)
    simple = simple and lease is not None and not run.parent_id and not in_transaction
    if simple and lease is not None:
        finish_run = runs.finish_simple if standalone else runs.finish_with_waits
        done = finish_run(lease, end, release_slots=run.flow is not None)
        if done:
            failpoint("finish.committed", run.function)
            announce_end(run, end)
            return True
        # The run has children or awaiting runs, or the lease is lost.

    def make_handlers(ended: Run, run_end: End) -> list[Run]:
        if ended.pk == run.pk and in_transaction is not None:
            in_transaction()
        return announce_end_and_build_handler(
            ended, run_end, start_handler=start_handler or ended.pk != run.pk
        )

    done = runs.finish(run, end, lease, make_handlers)
    if done:
        failpoint("finish.committed", run.function)
        _notify_parent(run)
    return done


def announce_end_and_build_handler(
    run: Run, end: End, *, start_handler: bool = True
) -> list[Run]:
    """Announce the end of a run; return the run of its handler, if it has one.

    Without ``start_handler``, no handler starts.
    """
    announce_end(run, end)
    if run.awaited:
        for queue in awaited_runs.queues(run.pk):
            notifier.notify(queue)
    if not start_handler:
        return []
    function = registry.find(run.function)
    if function is None:  # only a process with the function's code knows its handlers
        left_work.leave_handler(run)
        return []
    handler = _handler(function, end.status)
    return [] if handler is None else _build_handler(handler, run, end)


def start_left_handler(row: SweepError, run: Run) -> bool:
    """Start the handler of a run that ended in a process without its function.

    Return whether this call did what was left.
    """
    handler = _handler(registry.get(run.function), RunStatus(run.status))
    output = run.__dict__["output"]
    text = output.text() if isinstance(output, StoredPayload) else None
    end = End(RunStatus(run.status), text, run.error, run.reason)
    with db.atomic():
        if not left_work.delete(row):
            return False
        runs.insert([] if handler is None else _build_handler(handler, run, end))
    return True


def _build_handler(handler: Function, run: Run, end: End) -> list[Run]:
    """Return the run of a handler, not saved; none where the chain is too long."""
    if causation.too_deep(run):
        logger.error(
            "The handler %s of run %s of %s is not started: %s events and runs caused "
            "one another before it (setting MAX_DEPTH).",
            handler.id,
            run.pk,
            run.function,
            run.depth,
        )
        return []
    notifier.notify(handler.queue)
    handler_row = _handler_row(handler, run, end)
    announce(
        run_created,
        run_id=handler_row.pk,
        function=handler_row.function,
        status=handler_row.status,
    )
    return [handler_row]


def announce_end(run: Run, end: End) -> None:
    """Log and announce the end of a run, and release its schedule's next occurrence."""
    schedules.check_queued_occurrence(run)
    run_log.ended(run, end)
    announce(
        run_changed,
        run_id=run.pk,
        function=run.function,
        status=end.status,
        reason=end.reason,
    )


def cancel(run: Run, reason: str) -> bool:
    """Cancel a live run; return whether this call did."""
    return finish(run, End(RunStatus.CANCELLED, reason=reason))


def _handler(function: Function, status: RunStatus) -> Function | None:
    handlers = {
        RunStatus.COMPLETED: function.on_complete,
        RunStatus.FAILED: function.on_failure,
        RunStatus.CANCELLED: function.on_cancel,
    }
    return handlers.get(status)


def _handler_row(handler: Function, run: Run, end: End) -> Run:
    now = clock.now()
    event = lenient_event_of(run)
    data: dict[str, Any] = {
        "run_id": str(run.pk),
        "function": run.function,
        "status": str(end.status.value),
        "output": None if end.output is None else StoredPayload(end.output).shown(),
        "error": end.error,
        "reason": end.reason,
        "event": {**event.as_dict(), "data": event.data},
    }
    return NewRun(
        function=handler,
        # The output was accepted when the run ended: no limit applies here.
        data=serialization.dumps(
            data, what=f"the data of {handler.id!r}", wrapped=True
        ),
        event_meta=build_event_meta(RUN_ENDED, now),
        due_at=now,
        parent=run,
        parent_relation=HANDLER,
    ).build_row()


def _notify_parent(run: Run) -> None:
    if run.parent_id and run.parent_relation == INVOKE:
        queues = db.rows(Run).filter(pk=run.parent_id)
        for queue in queues.values_list("queue", flat=True):
            notifier.notify(queue)
