"""W11: from an event to the run that waits for it, among many other waits."""

from __future__ import annotations

import time

from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload, milli

TIMES = 20


def measure(session: Session, sizes: Sizes) -> Figures:
    """Send events to a waiting run, alone and among other waits for the same name."""
    session.need("wait")
    found = {"to the step, 1 wait": milli(_answers(session))}
    tenth = sizes.waits // 100
    for name, count in (
        ("to the step, a hundredth", tenth),
        ("to the step, all", sizes.waits - tenth),
    ):
        session.driver("fill", "waiting", count)
        found[name] = milli(_answers(session))
    return found


def _answers(session: Session) -> list[float]:
    """Return the seconds from each event to the next step of its run."""
    took = []
    for _ in range(TIMES + 2):
        run = session.start("wait", 1).runs[0]
        session.wait(1)
        time.sleep(0.1)  # the run waits by then
        sent = time.monotonic()
        session.driver("call", "send", ["bench/answer", {"run": run}])
        [mark] = session.wait(1)
        took.append(mark.began - sent)
    return took[2:]


WORKLOAD = Workload(
    ("W11",),
    "From an event to the run that waits for it, among 1, 100 and 10,000 waits for "
    "events of that name (1, 10,000 and 1,000,000 with --large)",
    (
        Figure("to the step, 1 wait", "ms"),
        Figure("to the step, a hundredth", "ms"),
        Figure("to the step, all", "ms"),
    ),
    measure,
    once=True,
)
