"""Runs held by processes of this machine that are gone.

Their leases run out by themselves; where a process is known to be dead, as after a
reload of the code, nobody needs to wait for that.
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


def take_back() -> int:
    """Queue again what dead processes of this machine hold; return how many runs."""
    own = f"{socket.gethostname()}:"
    done: list[Run] = []
    for run in leases.abandoned(own, BATCH):
        pid = run.worker.removeprefix(own).partition(":")[0]
        if pid.isdigit() and not _alive(int(pid)):
            work = partial(_bury, run, done)
            item_errors.guarded("lease", run.pk, work, run_id=run.pk)
    return len(done)


def _bury(run: Run, done: list[Run]) -> None:
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
        return True  # it is there, and somebody else's
    return True
