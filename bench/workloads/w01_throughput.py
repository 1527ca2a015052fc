"""W1: runs per second, sent by one process and executed by two."""

from __future__ import annotations

from bench.processes import spent
from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload


def measure(session: Session, sizes: Sizes) -> Figures:
    """Start runs as fast as possible, and wait for the last body."""
    assert session.workers is not None
    before = session.workers.processor()
    five = _rate(session, sizes.runs, 5)
    used = spent(before, session.workers.processor())
    return {
        "5-step runs": five,
        "1-step runs": _rate(session, sizes.runs, 1),
        "processor a 5-step run": used / sizes.runs * 1000,
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
