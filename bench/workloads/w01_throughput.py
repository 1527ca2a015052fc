"""W1: how many runs a second, sent by one process and executed by two."""

from __future__ import annotations

from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload


def measure(session: Session, sizes: Sizes) -> Figures:
    """Start runs as fast as can be, and wait for the last body of all."""
    assert session.workers is not None
    used = session.workers.processor_seconds()
    five = _rate(session, sizes.runs, 5)
    spent = session.workers.processor_seconds() - used
    return {
        "5-step runs": five,
        "1-step runs": _rate(session, sizes.runs, 1),
        "processor a 5-step run": spent / sizes.runs * 1000,
    }


def _rate(session: Session, count: int, steps: int) -> float:
    sent = session.start_many("steps", count, steps=steps)
    marks = session.wait(count * steps)
    session.settle()
    return count / (max(mark.ended for mark in marks) - sent.times[0])


WORKLOAD = Workload(
    ("W1",),
    "Throughput: runs of 5 steps and of 1, sent in bulk, two worker processes",
    (
        Figure("5-step runs", "/s", "more"),
        Figure("1-step runs", "/s", "more"),
        Figure("processor a 5-step run", "ms"),
    ),
    measure,
)
