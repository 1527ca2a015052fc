"""Requeue runs whose worker has died; they continue from their last record."""

from __future__ import annotations

from functools import partial

from durable_jobs import clock, notifier
from durable_jobs.failpoints import failpoint
from durable_jobs.lifecycle import run_log
from durable_jobs.models import Run
from durable_jobs.signals import announce, run_changed
from durable_jobs.statuses import RunStatus
from durable_jobs.store import item_errors, leases

BATCH = 100


def sweep() -> int:
    """Rescue runs with an expired lease; return how many."""
    done: list[Run] = []
    expired = leases.expired(BATCH)
    if expired:
        failpoint("lease.expired")
    for run in expired:
        item_errors.guarded(
            "lease",
            run.pk,
            partial(_rescue, run, done),
            postpone=partial(leases.postpone, run),
            run_id=run.pk,
        )
    return len(done)


def _rescue(run: Run, done: list[Run]) -> None:
    if not leases.rescue(run, clock.now()):
        return
    done.append(run)
    failpoint("lease.rescued", run.function)
    run_log.orphaned(run, f"the lease of worker {run.worker} ran out.")
    announce(
        run_changed,
        run_id=run.pk,
        function=run.function,
        status=RunStatus.QUEUED,
        reason="its lease ran out",
    )
    notifier.notify(run.queue)
