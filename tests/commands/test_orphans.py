"""Runs of dead processes on this machine are requeued at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from datetime import timedelta

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.worker import orphans

pytestmark = pytest.mark.django_db


@pytest.fixture
def held(durable_kit):
    """Return a function that leaves a run claimed by a worker of some name."""

    @durable.function(id="t.held")
    def function(ctx):
        return "done"

    def holding(worker, status="running"):
        run = function.enqueue()
        Run.objects.filter(pk=run.pk).update(
            status=status,
            worker=worker,
            claim_count=1,
            crash_count=1,
            lease_token=uuid.uuid4(),
            lease_until=durable_kit.now() + timedelta(minutes=1),
        )
        return run

    return holding


def a_dead_process() -> int:
    """Return the process id of an ended process."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_dead_process_of_this_machine_loses_its_runs(durable_kit, held):
    pid, host = a_dead_process(), socket.gethostname()
    runs = [held(f"{host}:{pid}"), held(f"{host}:{pid}:worker-thread_1")]
    assert orphans.requeue_orphans() == 2
    for run in runs:
        run.refresh_from_db()
        assert (run.status, run.lease_token) == ("queued", None)
        assert run.crash_count == 1, "the claim may have caused the process to die"
    durable_kit.run_until_idle()
    assert {run.status for run in Run.objects.all()} == {"completed"}


@pytest.mark.parametrize("host", ["other", socket.gethostname() + "2"])
def test_runs_of_other_machines_keep_their_leases(durable_kit, held, host):
    held(f"{host}:{a_dead_process()}")
    assert orphans.requeue_orphans() == 0


def test_runs_of_live_processes_keep_their_leases(durable_kit, held):
    held(f"{socket.gethostname()}:{os.getpid()}")
    held(f"{socket.gethostname()}:1")
    held("kit")
    assert orphans.requeue_orphans() == 0


def test_run_paused_meanwhile_remains_paused(durable_kit, held):
    run = held(f"{socket.gethostname()}:{a_dead_process()}", status="paused")
    assert orphans.requeue_orphans() == 0
    run.refresh_from_db()
    assert run.status == "paused"
