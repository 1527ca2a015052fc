"""W13: what the processes hold after all the work."""

from __future__ import annotations

from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload


def measure(session: Session, sizes: Sizes) -> Figures:
    """Look at the processes; what they share is shared out in the total."""
    assert session.workers is not None
    memory = session.workers.memory()
    return {
        "largest process": max(one.resident for one in memory),
        "all, shared out": sum(one.proportional for one in memory),
    }


WORKLOAD = Workload(
    ("W13",),
    "Memory: the largest process, and all that has to run besides database and broker",
    (Figure("largest process", "MB"), Figure("all, shared out", "MB")),
    measure,
    once=True,
)
