"""W2 and W3: the time to the first step of a single run, and between its steps."""

from __future__ import annotations

import random
import time

from bench.marks import gaps
from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload, milli

STEPS = 5


def measure(session: Session, sizes: Sizes) -> Figures:
    """Start runs one by one, each on an idle system."""
    starts, between = [], []
    pauses = random.Random(7)  # noqa: S311  # the same for all
    for _ in range(sizes.alone):
        # Random, so that the start never follows the rhythm of a peer's polling.
        time.sleep(0.05 + 0.2 * pauses.random())
        sent = session.start("steps", 1, steps=STEPS)
        marks = session.wait(STEPS)
        starts.append(min(mark.began for mark in marks) - sent.times[0])
        between += gaps(marks)
    return {
        "W2 first step, p50": milli(starts),
        "W2 first step, p95": milli(starts, 0.95),
        "W3 between steps, p50": milli(between),
        "W3 between steps, p95": milli(between, 0.95),
    }


WORKLOAD = Workload(
    ("W2", "W3"),
    "Latency on an idle system: from the send to the first step, and between steps",
    (
        Figure("W2 first step, p50", "ms"),
        Figure("W2 first step, p95", "ms"),
        Figure("W3 between steps, p50", "ms"),
        Figure("W3 between steps, p95", "ms"),
    ),
    measure,
)
