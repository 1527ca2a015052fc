"""W13: the memory of the processes after all the work."""

from __future__ import annotations

from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload


def measure(session: Session, sizes: Sizes) -> Figures:
    """Measure the processes; the total divides shared pages between them."""
    assert session.workers is not None
    memory = session.workers.memory()
    return {
        "largest process": max(one.resident for one in memory),
        "all processes": sum(one.proportional for one in memory),
    }


WORKLOAD = Workload(
    ("W13",),
    "Memory: the largest process, and all processes except database and broker",
    (Figure("largest process", "MB"), Figure("all processes", "MB")),
    measure,
    once=True,
)
