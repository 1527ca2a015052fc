"""W4: runs per second that one process enqueues while no worker runs."""

from __future__ import annotations

from bench.sessions import Missing, Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload


def measure(session: Session, sizes: Sizes) -> Figures:
    """Enqueue runs one by one and then in bulk."""
    if not session.starts_alone:
        raise Missing("enqueueing without workers")
    session.start("steps", 5, steps=5)
    single = session.start("steps", sizes.single, steps=5)
    found = {"single": sizes.single / single.seconds}
    if session.bulk:
        bulk = session.start_many("steps", sizes.bulk, steps=5)
        found["bulk"] = sizes.bulk / bulk.seconds
    return found


WORKLOAD = Workload(
    ("W4",),
    "Enqueueing by one process, one by one and in bulk",
    (Figure("single", "/s", "more"), Figure("bulk", "/s", "more")),
    measure,
    workers=False,
)
