"""W10: many timers due at once, and how soon another function starts meanwhile."""

from __future__ import annotations

import time

from bench.marks import by_run
from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload, milli, quantile

#: The first number of the other function's runs.
OTHERS = 500_000_000


def measure(session: Session, sizes: Sizes) -> Figures:
    """Let timers fall due, and start a run of another function again and again."""
    session.need("sleep")
    due = session.driver("call", "fill_due", [sizes.timers])
    sent: dict[int, float] = {}
    # The marks of the others come on top, one each.
    while session.marks.count() - len(sent) < sizes.timers:
        one = session.start("steps", 1, steps=1)
        sent[one.runs[0]] = one.times[0]
        time.sleep(0.1)
        if time.monotonic() > due + 600:
            raise TimeoutError("The timers were not answered within 600 s.")
    marks = session.wait(sizes.timers + len(sent))
    session.settle()
    runs = by_run(marks)
    starts = [runs[run][0].began - moment for run, moment in sent.items()]
    late = [own[0].began - due for run, own in runs.items() if run not in sent]
    return {
        "timers": sizes.timers / max(late),
        "first, late": milli([min(late)]),
        "median, late": quantile(late, 0.5),
        "another's start, p50": milli(starts),
        "another's start, p95": milli(starts, 0.95),
    }


WORKLOAD = Workload(
    ("W10",),
    "Timers due at once (10,000; 100,000 with --large), and another function's start",
    (
        Figure("timers", "/s", "more"),
        Figure("first, late", "ms"),
        Figure("median, late", "s"),
        Figure("another's start, p50", "ms"),
        Figure("another's start, p95", "ms"),
    ),
    measure,
    once=True,
)
