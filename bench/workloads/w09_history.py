"""W9: throughput beside millions of finished or sleeping runs."""

from __future__ import annotations

import statistics

from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload

TIMES = 3


def measure(session: Session, sizes: Sizes) -> Figures:
    """Measure with empty tables, a tenth of the rows, all rows, and sleeping runs."""
    session.driver("fill", "finished", 0)  # fail now if the peer cannot fill
    tenth = sizes.history // 10
    found = {"runs, empty tables": _rate(session, sizes)}
    for name, what, count in (
        ("runs, a tenth finished", "finished", tenth),
        ("runs, all finished", "finished", sizes.history - tenth),
        ("runs, with sleeping runs", "sleeping", sizes.sleeping),
    ):
        session.driver("fill", what, count)
        found[name] = _rate(session, sizes)
    return found


def _rate(session: Session, sizes: Sizes) -> float:
    session.start_many("steps", sizes.runs, steps=5)  # the caches are cold
    session.wait(sizes.runs * 5)
    rates = []
    for _ in range(TIMES):
        session.settle()
        sent = session.start_many("steps", sizes.runs, steps=5)
        marks = session.wait(sizes.runs * 5)
        rates.append(sizes.runs / (max(m.ended for m in marks) - sent.times[0]))
    session.settle()
    return statistics.median(rates)


WORKLOAD = Workload(
    ("W9",),
    "5-step runs beside finished runs (100,000; 10,000,000 with --large)",
    (
        Figure("runs, empty tables", "/s", "more"),
        Figure("runs, a tenth finished", "/s", "more"),
        Figure("runs, all finished", "/s", "more"),
        Figure("runs, with sleeping runs", "/s", "more"),
    ),
    measure,
    once=True,
)
