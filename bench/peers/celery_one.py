"""The ceiling: one Celery task that makes all the calls, without durability."""

from __future__ import annotations

import sys
from functools import partial

from celery import Celery

from bench.adapters import PROCESSES, Adapter, Peer, Sizes, run
from bench.marks import body
from bench.peers.celery_chain import app as base

PEER = Peer(
    "celery_one",
    "Celery, one task (not durable, the ceiling)",
    stated=("celery",),
    durable=False,
    uses_database=False,
)

app = Celery("bench.peers.celery_one", broker=base.conf.broker_url)
app.conf.update(
    broker_transport_options=base.conf.broker_transport_options,
    task_default_queue="bench-one",
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
)


@app.task
def calls(number: int, count: int) -> int:
    """Make all the calls."""
    for index in range(count):
        body(number, index)
    return count


class One(Adapter):
    """Send one message a run."""

    def prepare(self) -> None:
        """Purge earlier messages."""
        app.control.purge()

    def commands(self) -> list[list[str]]:
        """Return a worker of two processes."""
        celery = [sys.executable, "-m", "celery", "-q", "-A", "bench.peers.celery_one"]
        return [[*celery, "worker", "-c", str(PROCESSES), "-l", "ERROR"]]

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Send one task."""
        calls.delay(run, sizes["steps"])


if __name__ == "__main__":
    run(partial(One))
