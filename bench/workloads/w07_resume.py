"""W7: a long run, and the lateness of its next step after a sleep."""

from __future__ import annotations

from bench.sessions import Session
from bench.sizes import Sizes
from bench.workloads import Figure, Figures, Workload, milli

SLEEP = 1


def measure(session: Session, sizes: Sizes) -> Figures:
    """Run many steps, sleep, and run one more; then the same after a single step."""
    late, took = _resume(session, sizes.steps)
    short = min(_resume(session, 1)[0] for _ in range(3))
    return {
        "late": milli([late]),
        "late after one step": milli([short]),
        "the steps": took,
    }


def _resume(session: Session, steps: int) -> tuple[float, float]:
    session.start("long", 1, steps=steps, seconds=SLEEP)
    marks = sorted(session.wait(steps + 1), key=lambda mark: mark.step)
    session.settle()
    late = marks[-1].began - marks[-2].ended - SLEEP
    return late, marks[-2].ended - marks[0].began


WORKLOAD = Workload(
    ("W7",),
    "1,000 steps in sequence, a sleep of 1 s, and the lateness of the next step",
    (
        Figure("late", "ms"),
        Figure("late after one step", "ms"),
        Figure("the steps", "s"),
    ),
    measure,
)
