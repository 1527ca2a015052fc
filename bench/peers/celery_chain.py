"""Plain Celery: a chain of tasks for the steps of a run. Nothing is durable."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import ClassVar

from celery import Celery, chain, chord

from bench.adapters import PROCESSES, Adapter, Peer, Sizes, run
from bench.marks import body, leave
from project.addresses import broker

PEER = Peer(
    "celery_chain",
    "Celery, a chain (not durable)",
    stated=("celery",),
    durable=False,
    uses_database=False,
)

url, options = broker(os.environ.get("BROKER_URL", "memory://"))
# Chords need results.
app = Celery("bench.peers.celery_chain", broker=url)
app.conf.update(
    broker_transport_options=options,
    task_default_queue="bench-chain",
    broker_connection_retry_on_startup=True,
    result_backend=url,
    task_ignore_result=True,
)


@app.task
def step(number: int, index: int) -> int:
    """Execute one step."""
    return body(number, index)


@app.task(ignore_result=False)
def nap(number: int, index: int, ms: int) -> int:
    """Execute one branch."""
    began = time.monotonic()
    time.sleep(ms / 1000)
    leave(number, index, began, time.monotonic())
    return index


class Chain(Adapter):
    """Applies chains of tasks, countdowns and chords."""

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep", "fan"})

    def prepare(self) -> None:
        """Purge earlier messages."""
        app.control.purge()

    def commands(self) -> list[list[str]]:
        """Return a worker of two processes."""
        celery = [
            sys.executable,
            "-m",
            "celery",
            "-q",
            "-A",
            "bench.peers.celery_chain",
        ]
        return [[*celery, "worker", "-c", str(PROCESSES), "-l", "ERROR"]]

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Start one chain or chord."""
        if shape == "steps":
            chain(*(step.si(run, n) for n in range(sizes["steps"]))).apply_async()
        elif shape == "sleep":
            later = step.si(run, 1).set(countdown=sizes["seconds"])
            chain(step.si(run, 0), later).apply_async()
        else:
            last = sizes["branches"] + 1
            branches = [nap.si(run, n, sizes["ms"]) for n in range(1, last)]
            chain(step.si(run, 0), chord(branches, step.si(run, last))).apply_async()


if __name__ == "__main__":
    run(partial(Chain))
