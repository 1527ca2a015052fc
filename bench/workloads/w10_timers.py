"""W10: many timers due at once, and the start of another function meanwhile."""

from __future__ import annotations

import time

from bench.marks import by_run
from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload, milli, quantile


def measure(session: Session, sizes: Sizes) -> Figures:
    """Let timers become due, and start runs of other functions repeatedly."""
    session.need("sleep")
    due = session.driver("call", "fill_due", [sizes.timers])
    sent: dict[str, dict[int, float]] = {"steps": {}, "other": {}}
    # Each run of the other functions adds one mark.
    while session.marks.count() - _count(sent) < sizes.timers:
        for shape, own in sent.items():
            one = session.start(shape, 1, steps=1)
            own[one.runs[0]] = one.times[0]
        time.sleep(0.1)
        if time.monotonic() > due + 600:
            raise TimeoutError("The timers were not answered within 600 s.")
    marks = session.wait(sizes.timers + _count(sent))
    session.settle()
    runs = by_run(marks)
    same, apart = (
        [runs[run][0].began - moment for run, moment in own.items()]
        for own in sent.values()
    )
    others = {run for own in sent.values() for run in own}
    late = [own[0].began - due for run, own in runs.items() if run not in others]
    return {
        "timers": sizes.timers / max(late),
        "first, late": milli([min(late)]),
        "median, late": quantile(late, 0.5),
        "another's start, p50": milli(same),
        "on a queue of its own, p50": milli(apart),
        "on a queue of its own, p95": milli(apart, 0.95),
    }


def _count(sent: dict[str, dict[int, float]]) -> int:
    return sum(len(own) for own in sent.values())


WORKLOAD = Workload(
    ("W10",),
    "Timers due at once (10,000; 100,000 with --large), and another function's start",
    (
        Figure("timers", "/s", "more"),
        Figure("first, late", "ms"),
        Figure("median, late", "s"),
        Figure("another's start, p50", "ms"),
        Figure("on a queue of its own, p50", "ms"),
        Figure("on a queue of its own, p95", "ms"),
    ),
    measure,
    once=True,
)
