"""The main process of a prefork worker has no thread of ours while it forks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from durable_jobs.models import Worker
from tests.lab import durable as functions
from tests.lab.processes import Lab, Process, until
from tests.lab.watching import completed

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def threads(worker: Process) -> int:
    """Return how many threads the main process of a worker has."""
    return len(os.listdir(f"/proc/{worker.pid}/task"))


def heartbeats(worker: Process) -> list[Worker]:
    """Return the heartbeat rows of workers."""
    rows = Worker.objects.filter(kind="worker", name__endswith=f":{worker.pid}")
    return list(rows)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
def test_main_process_of_a_prefork_worker_has_one_thread(lab: Lab) -> None:
    worker = lab.worker("-P", "prefork", "-c", "2", LAB_PATROL="0.2,1,60")
    lab.beat()
    runs = [functions.mixed.enqueue() for _ in range(5)]
    until(lambda: completed(*runs), "all runs to end", lab)
    until(lambda: heartbeats(worker), "a heartbeat", lab)
    assert threads(worker) == 1
    assert worker.terminate() == 0
    assert heartbeats(worker) == [], "a worker that ends removes its heartbeat"


def test_children_that_end_all_the_time_leave_the_watchdog_to_the_next(
    lab: Lab,
) -> None:
    """There is no beat: the watchdog ticks, in whichever child runs it."""
    worker = lab.worker(
        *("-P", "prefork", "-c", "2", "--max-tasks-per-child", "3"),
        LAB_PATROL="0.2,0.5,60",
    )
    until(lambda: heartbeats(worker), "a heartbeat", lab)
    (first,) = heartbeats(worker)
    runs = [functions.mixed.enqueue() for _ in range(5)]
    until(lambda: completed(*runs), "all runs to end", lab)
    (last,) = heartbeats(worker)
    assert last.started_at == first.started_at
    assert threads(worker) == 1
