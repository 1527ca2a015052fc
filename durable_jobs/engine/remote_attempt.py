"""What a driver whose code runs elsewhere sees of an attempt, and tells it."""

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


def recall(ctx: AsyncContext) -> list[StepRecord]:
    """Return what is recorded of the run's steps, in order.

    What has ended counts as met: the code elsewhere is told all of it at once, and asks
    for none of it again.
    """
    state, runner = _inside(ctx)
    memos = sorted(state.history.memos.values(), key=lambda memo: memo.position)
    for memo in memos:
        if memo.ended:
            state.history.replay(memo.key, memo.name, memo.kind)
    runner.told()
    return memos


def failures(ctx: AsyncContext) -> int:
    """Return how often the function has failed since it last got on."""
    state, _ = _inside(ctx)
    return 0 if state.recorder.progress else state.run.attempt


def retries(ctx: AsyncContext) -> int:
    """Return how often a step, or the function, is tried again."""
    state, _ = _inside(ctx)
    return state.function.retries


def inside_body() -> bool:
    """Tell whether this is called in the body of a step."""
    return body_calls.attempt_number.get() is not None


async def idle(ctx: AsyncContext) -> None:
    """Wait until no step of the attempt is at work."""
    _, runner = _inside(ctx)
    await runner.idle()


@contextmanager
def at_work(ctx: AsyncContext) -> Iterator[None]:
    """Let the attempt go on while the code elsewhere is asked."""
    _, runner = _inside(ctx)
    with runner.at_work():
        yield


def _inside(ctx: AsyncContext) -> tuple[AttemptState, AsyncStepRunner]:
    assert isinstance(ctx, RunContext), "the engine makes no other"
    assert isinstance(ctx.runner, AsyncStepRunner), "the function is async def"
    return ctx.runner.state, ctx.runner
