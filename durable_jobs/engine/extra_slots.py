"""Acquire slots for parallel steps of one attempt, where a limit counts steps.

An attempt has a slot for one step. It acquires one more per parallel step, unless the
limit has no room or other runs are waiting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from durable_jobs import notifier
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.lifecycle import admission
from durable_jobs.store import limits


@dataclass(slots=True)
class ParallelWidth:
    """How many steps may execute at the same time.

    ``threads_left``: a step is still executing and keeps its slot until the run rests.
    """

    count: int
    threads_left: bool = False


@contextmanager
def parallel_width(state: AttemptState, wanted: int) -> Iterator[ParallelWidth]:
    """Yield how many branches may run in parallel, given the slots available."""
    if not state.holds_slots or wanted < 2:
        yield ParallelWidth(wanted)
        return
    slots = acquire_slots(state, wanted - 1)
    width = ParallelWidth(1 + len(slots) // _slots_per_step(state))
    yield width
    if slots and not width.threads_left:
        state.recorder.write(lambda: limits.release_slots_by_id(slots))
        notifier.notify(state.function.queue)


def acquire_slots(state: AttemptState, wanted: int) -> list[int]:
    """Acquire slots for ``wanted`` more steps; return their ids."""
    return state.recorder.write(lambda: admission.acquire_more_slots(state.run, wanted))


def _slots_per_step(state: AttemptState) -> int:
    controls = state.function.flow_control
    return max(1, sum(rule.of == "steps" for rule in controls.concurrency))
