"""How an attempt gives a run back that it does not end."""

from __future__ import annotations

from durable_jobs import clock, notifier
from durable_jobs.models import Run
from durable_jobs.signals import announce, run_changed
from durable_jobs.statuses import RunStatus
from durable_jobs.store import leases, runs, unknown_functions, workers
from durable_jobs.store.leases import Lease


def told(run: Run, status: str, reason: str = "") -> None:
    """Announce the new status of a run."""
    announce(
        run_changed,
        run_id=run.pk,
        function=run.function,
        status=status,
        reason=reason,
    )


def release(run: Run, lease: Lease) -> None:
    """Give a paused run back; one that was resumed in the meantime is queued."""
    status = runs.suspend(
        lease, due_at=clock.now(), holds_slots=run.requeue_to is not None
    )
    told(run, status)
    if status == RunStatus.QUEUED:
        notifier.notify(run.queue)


def leave_to_others(run: Run, lease: Lease) -> None:
    """Queue a run again whose function this process does not have.

    The claim does not count. The next claims of this process pass over the function.
    """
    unknown_functions.exclude(run.function)
    if leases.release([run.pk], lease.token):
        workers.record_missing(run.function)
        notifier.notify(run.queue)
    else:
        release(run, lease)  # it was paused in the meantime
