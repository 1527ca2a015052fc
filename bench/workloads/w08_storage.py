"""W8: the stored bytes of a five-step run, and its load on the database server."""

from __future__ import annotations

from bench.processes import processor, spent
from bench.sessions import Missing, Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload


def measure(session: Session, sizes: Sizes) -> Figures:
    """Read the counters before and after a batch of runs."""
    if not session.peer.uses_database:
        raise Missing("a database")
    before = session.database.stored_bytes()
    session.database.reset()
    used = processor(session.database.backends())
    session.start_many("steps", sizes.runs, steps=5)
    session.wait(sizes.runs * 5)
    session.settle()
    served = spent(used, processor(session.database.backends()))
    counted = session.database.counts(sizes.runs)
    stored = session.database.stored_bytes() - before
    return {
        "bytes": stored / sizes.runs,
        "WAL bytes": counted.wal_bytes,
        "statements": counted.calls,
        "waits for the disk": counted.syncs,
        "processor, database": served / sizes.runs * 1000,
    }


WORKLOAD = Workload(
    ("W8",),
    "Storage and server load of a 5-step run, its enqueueing included",
    (
        Figure("bytes", "B"),
        Figure("WAL bytes", "B"),
        Figure("statements", "a run"),
        Figure("waits for the disk", "a run"),
        Figure("processor, database", "ms"),
    ),
    measure,
    once=True,
)
