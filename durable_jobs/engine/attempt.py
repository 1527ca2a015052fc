"""One attempt of a run: a pipeline from the claim to what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from django.db import Error as DatabaseError
from django.db import transaction

from durable_jobs import clock, logs, notifier, serialization
from durable_jobs.conf import settings
from durable_jobs.control_flow import interrupts_known, is_failure, let_pass
from durable_jobs.definitions import current
from durable_jobs.definitions.flow_control import BatchFailures
from durable_jobs.definitions.function import Function
from durable_jobs.definitions.registry import registry
from durable_jobs.engine import (
    batch_failures,
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
from durable_jobs.engine.errors import describe, exc_info
from durable_jobs.engine.idle_detection import IdleDetector
from durable_jobs.engine.isolation import apart
from durable_jobs.engine.retries import next_attempt, raised_by
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.step_runner import AsyncStepRunner, StepRunner
from durable_jobs.engine.suspend import DatabaseFailed, is_suspension
from durable_jobs.exceptions import ConfigurationError, LimitExceeded, PayloadError
from durable_jobs.lifecycle import finish, run_log
from durable_jobs.models import Run
from durable_jobs.statuses import RunStatus
from durable_jobs.store import db, run_actions, runs, steps
from durable_jobs.store.leases import LeaseLost
from durable_jobs.store.runs import End

logger = logging.getLogger("durable_jobs")


@dataclass(frozen=True, slots=True)
class Returned:
    """The function returned."""

    value: Any


@dataclass(frozen=True, slots=True)
class Raised:
    """The function raised."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Suspended:
    """The function waits for something."""


Ending = Returned | Raised | Suspended


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
    lease = (run.pk, run.lease_token)
    session: AttemptState | None = None
    try:
        function = _resolve(run, lease)
        if function is not None:
            release.told(run, RunStatus.RUNNING)
            ahead = inputs.read(run, function)
            session = AttemptState(
                run,
                function,
                {} if _fresh(run) else steps.load(run.pk),
                threads=threads,
                lost=lost,
                stopping=stopping,
            )
            _attempt(session, ahead)
    except inputs.Unreadable as unread:
        inputs.postpone(run, unread)
    except LeaseLost:
        logger.info("Run %s was taken over or ended by others: left to them.", run.pk)
    except (DatabaseError, DatabaseFailed) as error:
        # Committed or not, the memos tell: whoever claims the run next reads them.
        if not db.lost(error.__cause__ if isinstance(error, DatabaseFailed) else error):
            logger.warning("The database failed in run %s.", run.pk, exc_info=True)
        give_up(run, error, progress=session is not None and session.progress > 0)


def _resolve(run: Run, lease: steps.Lease) -> Function | None:
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


def _attempt(session: AttemptState, ahead: PrefetchedContext | None) -> None:
    trouble: Exception | None = None
    try:
        with (
            body_calls.unmarked(),
            logs.about(session.run),
            current.executing(session.run),
            interrupts_known(),
            event_loops.attempt(),
        ):
            ended = (
                _call_sync(session) if ahead is None else _call_async(session, ahead)
            )
            session.end_if_over()  # the function may have caught it
    finally:
        trouble = session.guard.end(f"Function {session.function.id!r}")
        session.close()
    if trouble is not None and not isinstance(ended, Raised):
        ended = Raised(trouble)
    plain = _fresh(session.run) and not session.suspended_steps and not session.waited
    _settle(session, ended, plain=plain)


def _call_sync(session: AttemptState) -> Ending:
    performer = StepRunner(session)
    token = current.performer.set(performer)
    try:
        with scope.entered(Scope()) as whole:
            ended = _call_outcome(
                lambda: session.function(RunContext(session, performer))
            )
            # Whatever the function has made of its suspension, it is suspended.
            return Suspended() if whole.left else ended
    finally:
        current.performer.reset(token)


def _call_outcome(call: Callable[[], Any]) -> Ending:
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


def _call_async(session: AttemptState, ahead: PrefetchedContext) -> Ending:
    try:
        return event_loops.run(_run_loop, session, ahead)
    except (SystemExit, KeyboardInterrupt) as error:  # of a task that it began
        let_pass(error)
        return Raised(error)


async def _run_loop(session: AttemptState, ahead: PrefetchedContext) -> Ending:
    """Call an ``async def`` function and wait until nothing in it can go on."""
    activity = IdleDetector(event_loops.current())
    performer = AsyncStepRunner(session, activity)
    token = current.performer.set(performer)
    try:
        with scope.entered(Scope(concurrent=True)):
            ctx = RunContext(session, performer, ahead)
            function = asyncio.ensure_future(_async_outcome(session, ctx))
            ended = await activity.rest(function)
            return function.result() if ended else Suspended()
    finally:
        current.performer.reset(token)
        await activity.leave()


async def _async_outcome(session: AttemptState, ctx: RunContext) -> Ending:
    try:
        return Returned(await session.function(ctx))
    except BaseException as error:
        # Cancelled too: by its own code, if the attempt still goes on.
        if is_failure(error):
            return Raised(error)
        raise


def _settle(session: AttemptState, ended: Ending, *, plain: bool) -> None:
    """Write what came of the attempt."""
    if session.diverged is not None:
        _pause_run(session.run, session.lease, session.diverged.message)
    elif isinstance(ended, Suspended):
        _suspend(session)
    elif isinstance(ended, Returned):
        _complete(session, ended.value, plain=plain)
    else:
        _fail(session, ended.error)


def _suspend(session: AttemptState) -> None:
    now = clock.now()
    # What has seen a pause comes back at once, if the run was resumed meanwhile.
    again = session.requeue or session.move_to_queue or session.paused
    due_at = now if again else None
    queue = session.move_to_queue or session.function.queue
    status = runs.suspend(
        session.lease,
        notes=session.deferred_records,
        parked=session.suspended_steps,
        queue=queue,
        due_at=due_at,
        attempt=0,
        holding=session.limited,
    )
    release.told(session.run, status)
    for look in session.post_commit_checks:
        look()
    current_status = db.rows(Run).filter(pk=session.run.pk)
    if session.post_commit_checks:
        status = current_status.values_list("status", flat=True).get()
    if status == RunStatus.QUEUED:
        notifier.notify(queue)
    _ring_later(session)


def _ring_later(session: AttemptState) -> None:
    """Ask for a precise ring where a wait is short; the tick is the guarantee."""
    times = [
        wait.due_at
        for item in session.suspended_steps
        for wait in item.waits
        if wait.due_at is not None
    ]
    if times:
        notifier.notify_at(min(times), session.function.queue)


def _complete(session: AttemptState, value: Any, *, plain: bool) -> None:
    run = session.run
    reason, along = "", None
    if isinstance(value, BatchFailures):
        value, reason, along = batch_failures.given_back(session, value)
    try:
        output = serialization.dumps(
            value,
            what=f"the output of run {run.pk} of {run.function}",
            limit=settings.MAX_STEP_BYTES,
            limit_setting="MAX_STEP_BYTES",
        )
    except (PayloadError, LimitExceeded) as refused:
        _end_failed(session, refused)
        return
    unmet = session.unreplayed()
    if unmet:
        names = ", ".join(repr(memo.name) for memo in unmet[:10])
        logger.warning(
            "Run %s of %s ended without meeting %d recorded steps: %s.",
            run.pk,
            run.function,
            len(unmet),
            names,
        )
    if session.deferred_records:
        steps.record(session.lease, session.deferred_records)
    end = End(RunStatus.COMPLETED, output=output, reason=reason)
    _ended(session, end, plain=plain, along=along)


def _fail(session: AttemptState, error: BaseException) -> None:
    """Call the function again later, or let the run fail."""
    run, function = session.run, session.function
    # Progress since the last failure of the body gives it its retries back.
    attempt = 0 if session.progress else run.attempt
    try:
        due = next_attempt(error, attempt, function.retries, function.backoff)
    except ConfigurationError as wrong:  # by the user's own backoff
        _end_failed(session, wrong)
        return
    if due is None:
        _end_failed(session, error)
        return
    record, now = describe(error), clock.now()
    with transaction.atomic(using=db.alias()):
        status = runs.suspend(
            session.lease,
            notes=session.deferred_records,
            parked=session.suspended_steps,
            queue=function.queue,
            due_at=due,
            attempt=attempt + 1,
            holding=session.limited,
        )
        steps.record_attempt(run.pk, "", attempt, record, None, now)
        run_log.attempt_failed(run, record, error, attempt + 1, due_at=due)
    release.told(run, status)
    notifier.notify_at(due, function.queue)


def _end_failed(session: AttemptState, error: BaseException) -> None:
    record = describe(error)
    record.pop("class", None)
    record.pop("args", None)
    reason, along = "", None
    split = batch_failures.halves(session)
    if split is not None:
        reason, along = split
    end = End(
        RunStatus.FAILED,
        error=record,
        reason=reason,
        exc_info=exc_info(error),
        step=raised_by(session, record),
    )
    _ended(session, end, plain=False, along=along, handled=split is None)


def _ended(
    session: AttemptState,
    end: End,
    *,
    plain: bool,
    along: batch_failures.Along | None = None,
    handled: bool = True,
) -> None:
    """End the run. ``along`` is called in the same transaction.

    Without ``handled``, what the run was for goes on elsewhere: no handler follows.
    """
    bare = not session.function.cancel_on and not _limited(session)
    done = finish.finish(
        session.run,
        end,
        session.lease,
        plain=plain and bare and along is None,
        along=along,
        handled=handled,
    )
    if not done:
        # It was paused, or is not ours. A paused run ends when it is resumed: the
        # function is called again, and returns.
        release.release(session.run, session.lease)


def _limited(session: AttemptState) -> bool:
    limits = session.function.timeouts
    return limits.start is not None or limits.finish is not None


def _pause_run(run: Run, lease: steps.Lease, reason: str) -> None:
    if run_actions.pause(run.pk, reason, lease):
        run_log.paused(run, reason)
        release.told(run, RunStatus.PAUSED, reason)
    else:  # by somebody else; whoever resumes it finds the reason again
        release.release(run, lease)
