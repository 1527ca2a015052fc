"""W5: the lateness of many concurrent sleeps."""

from __future__ import annotations

from bench.marks import by_run
from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload, milli


def measure(session: Session, sizes: Sizes) -> Figures:
    """Start runs with a step, a sleep and a second step."""
    session.start_many("sleep", sizes.sleeps, seconds=sizes.sleep)
    marks = session.wait(2 * sizes.sleeps)
    late = [
        after.began - before.ended - sizes.sleep
        for before, after in by_run(marks).values()
    ]
    session.settle()
    return {"late, p50": milli(late), "late, p95": milli(late, 0.95)}


WORKLOAD = Workload(
    ("W5",),
    "Lateness of 100 concurrent sleeps of 2 s, from the step before to the step after",
    (Figure("late, p50", "ms"), Figure("late, p95", "ms")),
    measure,
)
