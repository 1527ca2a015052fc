"""Steps side by side in one attempt, where a limit counts steps.

An attempt has a slot for one step. For each further one that it executes at the same
time it takes another, as far as there are any, and nobody else waits for them.
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
    """How many steps may be executed at the same time.

    ``outlasted``: one of them goes on, and keeps its slot until the run rests.
    """

    count: int
    outlasted: bool = False


@contextmanager
def side_by_side(state: AttemptState, wanted: int) -> Iterator[ParallelWidth]:
    """Give the width of a fork: what is wanted, or what there are slots for."""
    if not state.limited or wanted < 2:
        yield ParallelWidth(wanted)
        return
    slots = widen(state, wanted - 1)
    width = ParallelWidth(1 + len(slots) // _slots_a_step(state))
    yield width
    if slots and not width.outlasted:
        state.recorder.write(lambda: limits.release_slots(slots))
        notifier.notify(state.function.queue)


def widen(state: AttemptState, wanted: int) -> list[int]:
    """Take slots for more steps; return their ids, none when there is no room."""
    return state.recorder.write(lambda: admission.acquire_more_slots(state.run, wanted))


def _slots_a_step(state: AttemptState) -> int:
    controls = state.function.controls
    return max(1, sum(one.of == "steps" for one in controls.concurrency))
