"""Release a run that an attempt does not end."""

from __future__ import annotations

import logging

from durable_jobs import clock, notifier
from durable_jobs.models import Run
from durable_jobs.signals import announce, run_changed
from durable_jobs.statuses import RunStatus
from durable_jobs.store import claim_exclusions, leases, left_work, runs, workers
from durable_jobs.store.leases import Lease

logger = logging.getLogger("durable_jobs")


def announce_status(run: Run, status: str, reason: str = "") -> None:
    announce(
        run_changed,
        run_id=run.pk,
        function=run.function,
        status=status,
        reason=reason,
    )


def release_paused(run: Run, lease: Lease) -> None:
    """Release a paused run; requeue it if it was resumed in the meantime."""
    status = runs.suspend(
        lease, due_at=clock.now(), release_slots=run.requeue_to is not None
    )
    announce_status(run, status)
    if status == RunStatus.QUEUED:
        notifier.notify(run.queue)


def requeue_unknown_function(run: Run, lease: Lease) -> None:
    """Requeue a run whose function this process does not have.

    The claim does not count as an attempt. Later claims of this process skip the
    function.
    """
    claim_exclusions.exclude_function(run.function)
    if leases.release_leases([run.pk], lease.token):
        workers.record_missing(run.function)
        notifier.notify(run.queue)
    else:
        release_paused(run, lease)  # paused in the meantime


def leave_to_newer_version(run: Run, lease: Lease, needs: str) -> None:
    """Queue a run again that this version of the package cannot execute.

    The claim does not count. The next claims of this process exclude the run.
    """
    claim_exclusions.exclude_run(run.pk, run.function)
    if not leases.release_leases([run.pk], lease.token):
        release_paused(run, lease)  # paused in the meantime
        return
    if left_work.record_needed_version(run, needs):
        logger.warning(
            "Run %s of %s needs a newer version of durable_jobs and is left to other "
            "workers: %s.",
            run.pk,
            run.function,
            needs.rstrip("."),
        )
    announce_status(run, RunStatus.QUEUED)
    notifier.notify(run.queue)
