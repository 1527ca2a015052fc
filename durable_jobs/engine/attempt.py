"""Execute one attempt of a run: from the claim to its outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from django.db import Error as DatabaseError

from durable_jobs import logs
from durable_jobs.conf import settings
from durable_jobs.control_flow import interrupts_known, is_failure, reraise_control
from durable_jobs.definitions import execution
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.engine import (
    body_calls,
    event_loops,
    inputs,
    newer_version,
    release_run,
    scope,
)
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.awaitables import awaitable_error
from durable_jobs.engine.context import PrefetchedContext, RunContext
from durable_jobs.engine.database_errors import requeue_after_db_error
from durable_jobs.engine.idle_detection import IdleDetector
from durable_jobs.engine.isolation import isolate
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.settle import (
    AttemptOutcome,
    Raised,
    Returned,
    Suspended,
    settle,
)
from durable_jobs.engine.step_runner import AsyncStepRunner, StepRunner
from durable_jobs.engine.suspend import (
    DatabaseFailed,
    NewerVersionNeeded,
    is_suspension,
)
from durable_jobs.lifecycle import finish
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, runs, steps
from durable_jobs.store.leases import Lease, LeaseLost
from durable_jobs.store.runs import End

logger = logging.getLogger("durable_jobs")


@isolate
def execute_attempt(
    run: Run,
    *,
    threads: int,
    lease_lost: Callable[[], bool] = lambda: False,
    shutting_down: Callable[[], bool] = lambda: False,
) -> None:
    """Execute a claimed run until it ends or suspends.

    ``threads``: how many branches may execute in parallel; 0 executes all of them in
    this thread. ``lease_lost`` returns whether the lease is known to be lost,
    ``shutting_down`` whether the worker is shutting down; then no further step starts.
    After a database error the run is requeued, or keeps its lease if that fails too.
    """
    assert run.lease_token is not None, "the run was claimed"
    lease = Lease(run.pk, run.lease_token)
    state: AttemptState | None = None
    try:
        function = _find_function(run, lease)
        if function is not None:
            release_run.announce_status(run, RunStatus.RUNNING)
            prefetched = inputs.read(run, function)
            records = {} if _has_no_records(run) else steps.load(run.pk)
            newer_version.check_steps(records.values())
            state = AttemptState(
                run,
                function,
                records,
                threads=threads,
                lease_lost=lease_lost,
                shutting_down=shutting_down,
            )
            _execute(state, prefetched)
    except inputs.Unreadable as unread:
        inputs.postpone(run, unread)
    except NewerVersionNeeded as needed:
        release_run.leave_to_newer_version(run, lease, str(needed))
    except LeaseLost:
        logger.info("Run %s: another process has taken it over or ended it.", run.pk)
    except (DatabaseError, DatabaseFailed) as error:
        # The next attempt reads the records, so it knows what was committed.
        if not db.is_outage(
            error.__cause__ if isinstance(error, DatabaseFailed) else error
        ):
            logger.warning("The database failed in run %s.", run.pk, exc_info=True)
        requeue_after_db_error(
            run, error, progress=state is not None and state.recorder.progress > 0
        )


def _find_function(run: Run, lease: Lease) -> Function | None:
    """Return the function to call, or None if the run ended or was requeued."""
    function = registry.find(run.function)
    if function is None:
        release_run.requeue_unknown_function(run, lease)
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


def _has_no_records(run: Run) -> bool:
    """Return whether the run cannot have step records yet."""
    return run.claim_count <= 1 and run.parent_relation != runs.RERUN


def _execute(state: AttemptState, prefetched: PrefetchedContext | None) -> None:
    guard_error: Exception | None = None
    try:
        with (
            body_calls.outside_body(),
            logs.adding_run_fields(state.run),
            execution.executing(state.run),
            interrupts_known(),
            event_loops.attempt_loop(),
        ):
            if prefetched is None:
                outcome = _call_sync(state)
            else:
                outcome = _call_async(state, prefetched)
            state.reraise_abort_error()  # the function may have caught the error
    finally:
        guard_error = state.guard.end(f"Function {state.function.id!r}")
        state.recorder.close()
    if guard_error is not None and not isinstance(outcome, Raised):
        outcome = Raised(guard_error)
    standalone = (
        _has_no_records(state.run)
        and not state.recorder.suspended_steps
        and not state.recorder.waited
    )
    settle(state, outcome, standalone=standalone)


def _call_sync(state: AttemptState) -> AttemptOutcome:
    runner = StepRunner(state)
    token = execution.current_performer.set(runner)
    try:
        with scope.entered(Scope()) as root:
            outcome = _call_outcome(lambda: state.function(RunContext(state, runner)))
            # The run is suspended even if the function caught the Suspend exception.
            return Suspended() if root.suspended else outcome
    finally:
        execution.current_performer.reset(token)


def _call_outcome(call: Callable[[], Any]) -> AttemptOutcome:
    try:
        value = call()
        if isinstance(value, Awaitable):
            return Raised(awaitable_error(value, "The function"))
        return Returned(value)
    except BaseException as error:
        if is_failure(error):
            return Raised(error)
        if is_suspension(error):
            return Suspended()
        raise


def _call_async(state: AttemptState, prefetched: PrefetchedContext) -> AttemptOutcome:
    try:
        return event_loops.run(_run_loop, state, prefetched)
    except (SystemExit, KeyboardInterrupt) as error:  # raised in a task of the function
        reraise_control(error)
        return Raised(error)


async def _run_loop(
    state: AttemptState, prefetched: PrefetchedContext
) -> AttemptOutcome:
    """Call an ``async def`` function; return when it ends or no task can continue."""
    idle_detector = IdleDetector(event_loops.running_loop())
    runner = AsyncStepRunner(state, idle_detector)
    token = execution.current_performer.set(runner)
    try:
        with scope.entered(Scope(concurrent=True)):
            ctx = RunContext(state, runner, prefetched)
            function = asyncio.ensure_future(_async_outcome(state, ctx))
            has_ended = await idle_detector.wait(function)
            return function.result() if has_ended else Suspended()
    finally:
        execution.current_performer.reset(token)
        await idle_detector.close()


async def _async_outcome(state: AttemptState, ctx: RunContext) -> AttemptOutcome:
    try:
        return Returned(await state.function(ctx))
    except BaseException as error:
        # A CancelledError too: code of the function raised it.
        if is_failure(error):
            return Raised(error)
        raise
