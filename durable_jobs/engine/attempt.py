"""One attempt of a run: a pipeline from the claim to what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from django.db import Error as DatabaseError

from durable_jobs import logs
from durable_jobs.conf import settings
from durable_jobs.control_flow import interrupts_known, is_failure, let_pass
from durable_jobs.definitions import current
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.engine import (
    body_calls,
    event_loops,
    inputs,
    release,
    scope,
)
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.awaitables import refusal
from durable_jobs.engine.context import PrefetchedContext, RunContext
from durable_jobs.engine.database_errors import give_up
from durable_jobs.engine.idle_detection import IdleDetector
from durable_jobs.engine.isolation import apart
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.settle import (
    AttemptOutcome,
    Raised,
    Returned,
    Suspended,
    settle,
)
from durable_jobs.engine.step_runner import AsyncStepRunner, StepRunner
from durable_jobs.engine.suspend import DatabaseFailed, is_suspension
from durable_jobs.lifecycle import finish
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, runs, steps
from durable_jobs.store.leases import Lease, LeaseLost
from durable_jobs.store.runs import End

logger = logging.getLogger("durable_jobs")


@apart
def execute_attempt(
    run: Run,
    *,
    threads: int,
    lost: Callable[[], bool] = lambda: False,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Bring a claimed run as far as it goes now: to its end, or to where it waits.

    ``threads``: how many branches may execute side by side, 0 for all in this thread.
    ``lost`` tells whether the lease is known to be lost, ``stopping`` whether the
    worker is to end: then no further step begins. A database that fails here leaves
    the run to its lease.
    """
    assert run.lease_token is not None, "the run was claimed"
    lease = Lease(run.pk, run.lease_token)
    state: AttemptState | None = None
    try:
        function = _resolve(run, lease)
        if function is not None:
            release.told(run, RunStatus.RUNNING)
            ahead = inputs.read(run, function)
            state = AttemptState(
                run,
                function,
                {} if _fresh(run) else steps.load(run.pk),
                threads=threads,
                lost=lost,
                stopping=stopping,
            )
            _attempt(state, ahead)
    except inputs.Unreadable as unread:
        inputs.postpone(run, unread)
    except LeaseLost:
        logger.info("Run %s was taken over or outcome by others: left to them.", run.pk)
    except (DatabaseError, DatabaseFailed) as error:
        # Committed or not, the memos tell: whoever claims the run next reads them.
        if not db.lost(error.__cause__ if isinstance(error, DatabaseFailed) else error):
            logger.warning("The database failed in run %s.", run.pk, exc_info=True)
        give_up(run, error, progress=state is not None and state.recorder.progress > 0)


def _resolve(run: Run, lease: Lease) -> Function | None:
    """Return the function to call; None when the run ends here or is left to others."""
    function = registry.find(run.function)
    if function is None:
        release.leave_to_others(run, lease)
        return None
    if run.crash_count > settings.MAX_CRASHES:
        message = (
            f"Its worker died {run.crash_count - 1} times in a row while executing it "
            f"(setting MAX_CRASHES)."
        )
        error = {"type": "WorkerLost", "message": message, "traceback": ""}
        finish.finish(run, End(RunStatus.FAILED, error=error, reason=message), lease)
        return None
    return function


def _fresh(run: Run) -> bool:
    """Return whether no step of the run can be recorded yet."""
    return run.claim_count <= 1 and run.parent_relation != runs.RERUN


def _attempt(state: AttemptState, ahead: PrefetchedContext | None) -> None:
    trouble: Exception | None = None
    try:
        with (
            body_calls.unmarked(),
            logs.about(state.run),
            current.executing(state.run),
            interrupts_known(),
            event_loops.attempt(),
        ):
            outcome = _call_sync(state) if ahead is None else _call_async(state, ahead)
            state.end_if_over()  # the function may have caught it
    finally:
        trouble = state.guard.end(f"Function {state.function.id!r}")
        state.recorder.close()
    if trouble is not None and not isinstance(outcome, Raised):
        outcome = Raised(trouble)
    plain = (
        _fresh(state.run)
        and not state.recorder.suspended_steps
        and not state.recorder.waited
    )
    settle(state, outcome, plain=plain)


def _call_sync(state: AttemptState) -> AttemptOutcome:
    runner = StepRunner(state)
    token = current.performer.set(runner)
    try:
        with scope.entered(Scope()) as whole:
            outcome = _call_outcome(lambda: state.function(RunContext(state, runner)))
            # Whatever the function has made of its suspension, it is suspended.
            return Suspended() if whole.left else outcome
    finally:
        current.performer.reset(token)


def _call_outcome(call: Callable[[], Any]) -> AttemptOutcome:
    try:
        value = call()
        if isinstance(value, Awaitable):
            return Raised(refusal(value, "The function"))
        return Returned(value)
    except BaseException as error:
        if is_failure(error):
            return Raised(error)
        if is_suspension(error):
            return Suspended()
        raise


def _call_async(state: AttemptState, ahead: PrefetchedContext) -> AttemptOutcome:
    try:
        return event_loops.run(_run_loop, state, ahead)
    except (SystemExit, KeyboardInterrupt) as error:  # of a task that it began
        let_pass(error)
        return Raised(error)


async def _run_loop(state: AttemptState, ahead: PrefetchedContext) -> AttemptOutcome:
    """Call an ``async def`` function and wait until nothing in it can go on."""
    activity = IdleDetector(event_loops.current())
    runner = AsyncStepRunner(state, activity)
    token = current.performer.set(runner)
    try:
        with scope.entered(Scope(concurrent=True)):
            ctx = RunContext(state, runner, ahead)
            function = asyncio.ensure_future(_async_outcome(state, ctx))
            outcome = await activity.rest(function)
            return function.result() if outcome else Suspended()
    finally:
        current.performer.reset(token)
        await activity.leave()


async def _async_outcome(state: AttemptState, ctx: RunContext) -> AttemptOutcome:
    try:
        return Returned(await state.function(ctx))
    except BaseException as error:
        # Cancelled too: by its own code, if the attempt still goes on.
        if is_failure(error):
            return Raised(error)
        raise
