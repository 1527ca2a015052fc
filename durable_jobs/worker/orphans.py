"""Requeue runs whose worker process on this host has died.

Their leases would expire later. If the process is known to be dead, for example after a
code reload, there is no reason to wait.
"""

from __future__ import annotations

import os
import socket
from functools import partial

from durable_jobs import notifier
from durable_jobs.lifecycle import run_log
from durable_jobs.models import Run
from durable_jobs.store import item_errors, leases

BATCH = 1000


def requeue_orphans() -> int:
    """Requeue the runs of dead processes on this host. Return how many."""
    prefix = f"{socket.gethostname()}:"
    done: list[Run] = []
    for run in leases.held_by_worker(prefix, BATCH):
        pid = run.worker.removeprefix(prefix).partition(":")[0]
        if pid.isdigit() and not _alive(int(pid)):
            work = partial(_requeue, run, done)
            item_errors.guarded("lease", run.pk, work, run_id=run.pk)
    return len(done)


def _requeue(run: Run, done: list[Run]) -> None:
    if leases.requeue_dead_holder(run):
        done.append(run)
        run_log.orphaned(run, f"the process of worker {run.worker} is gone.")
        notifier.notify(run.queue)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # the process exists and belongs to another user
    return True
