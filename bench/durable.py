"""The durable function that is measured."""

from __future__ import annotations

from bench.marks import CALLS, leave, mark
from durable_jobs import durable


@durable.function(id="bench.five_steps")
def five_steps(ctx: durable.Context) -> int:
    """Take five steps that do nothing."""
    calls = [ctx.step.run(f"step {number}", mark) for number in range(CALLS)]
    leave(calls)
    return len(calls)
