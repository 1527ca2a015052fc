"""The part of an attempt that a driver of remote code may read and control."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from durable_jobs.engine import body_calls
from durable_jobs.engine.context import RunContext
from durable_jobs.engine.step_runner import AsyncStepRunner
from durable_jobs.store.steps import StepRecord

if TYPE_CHECKING:
    from durable_jobs.definitions.context import AsyncContext
    from durable_jobs.engine.attempt_state import AttemptState


def load_history(ctx: AsyncContext) -> list[StepRecord]:
    """Return the records of the run's steps, in order.

    Ended steps count as replayed: the remote app receives all their results at once and
    requests none of them again.
    """
    state, runner = _parts(ctx)
    step_records = sorted(
        state.history.step_records.values(),
        key=lambda step_record: step_record.position,
    )
    for step_record in step_records:
        if step_record.ended:
            state.history.replay(step_record.key, step_record.name, step_record.kind)
    runner.mark_all_delivered()
    return step_records


def failures(ctx: AsyncContext) -> int:
    """Return how many attempts of the function have failed since its last progress."""
    state, _ = _parts(ctx)
    return 0 if state.recorder.progress else state.run.attempt


def retries(ctx: AsyncContext) -> int:
    """Return how many retries a step or the function has."""
    state, _ = _parts(ctx)
    return state.function.retries


def inside_body() -> bool:
    """Return whether the caller is in the body of a step."""
    return body_calls.failure_count.get() is not None


async def wait_for_steps(ctx: AsyncContext) -> None:
    """Wait until no step of the attempt executes."""
    _, runner = _parts(ctx)
    await runner.wait_for_steps()


@contextmanager
def working(ctx: AsyncContext) -> Iterator[None]:
    """Keep the attempt running while the remote app is called."""
    _, runner = _parts(ctx)
    with runner.working():
        yield


def _parts(ctx: AsyncContext) -> tuple[AttemptState, AsyncStepRunner]:
    assert isinstance(ctx, RunContext), "the engine makes this context"
    assert isinstance(ctx.runner, AsyncStepRunner), "the function is async def"
    return ctx.runner.state, ctx.runner
