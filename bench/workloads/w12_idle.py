"""W12: statements and processor time of an idle installation."""

from __future__ import annotations

import time

from bench.processes import processor, spent
from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload


def measure(session: Session, sizes: Sizes) -> Figures:
    """Wait, and read the counters before and after."""
    workers = session.workers
    assert workers is not None
    time.sleep(1)
    session.database.reset_statements()
    began, served = workers.processor(), processor(session.database.backends())
    time.sleep(sizes.idle)
    used = spent(began, workers.processor())
    found = {"processor": used / sizes.idle * 1000}
    if session.peer.uses_database:
        calls = sum(one.calls for one in session.database.statements())
        found["statements"] = calls / sizes.idle
        used = spent(served, processor(session.database.backends()))
        found["processor, database"] = used / sizes.idle * 1000
    return found


WORKLOAD = Workload(
    ("W12",),
    "An idle installation: two worker processes and the other required processes",
    (
        Figure("statements", "/s"),
        Figure("processor", "ms/s"),
        Figure("processor, database", "ms/s"),
    ),
    measure,
    once=True,
)
