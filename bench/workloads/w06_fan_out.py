"""W6: the time of many short branches, from the step before to the step after."""

from __future__ import annotations

import statistics

from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload

TIMES = 3


def measure(session: Session, sizes: Sizes) -> Figures:
    """Start a run that fans out, a few times."""
    figures = {"fan-out": _fan_out(session, sizes, "fan")}
    if "threads" in session.shapes:
        figures["blocking bodies"] = _fan_out(session, sizes, "threads")
    return figures


def _fan_out(session: Session, sizes: Sizes, shape: str) -> float:
    took = []
    for _ in range(TIMES):
        session.start(shape, 1, branches=sizes.branches, ms=sizes.branch_ms)
        marks = sorted(session.wait(sizes.branches + 2), key=lambda mark: mark.step)
        took.append(marks[-1].began - marks[0].ended)
        session.settle()
    return statistics.median(took) * 1000


WORKLOAD = Workload(
    ("W6",),
    "Fan-out of 100 branches of 10 ms, from the step before to the step after",
    (Figure("fan-out", "ms"), Figure("blocking bodies", "ms")),
    measure,
)
