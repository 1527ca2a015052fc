"""``parallel`` and ``map``: durable branches, and a policy that counts them."""

from __future__ import annotations

import functools
from datetime import datetime

from durable_jobs import clock
from durable_jobs.definitions import operations as ops
from durable_jobs.engine.effects import (
    BodyOutcome,
    CallBranch,
    Plan,
    RunBranches,
    StepCall,
)
from durable_jobs.engine.retries import record_outcome, waits_for_retry
from durable_jobs.engine.scope import Scope, entered
from durable_jobs.engine.steps.branch_counter import BranchCounter
from durable_jobs.engine.steps.parallel_results import parallel_result
from durable_jobs.engine.suspend import Suspend, is_suspension
from durable_jobs.exceptions import DurableError
from durable_jobs.lifecycle import finish
from durable_jobs.statuses import StepStatus
from durable_jobs.store import runs
from durable_jobs.store.steps import StepRecord

BRANCH = "branch"


def parallel(step: StepCall, operation: ops.Parallel) -> Plan:
    """Drive the unfinished branches, and record the result that they decide."""
    state = step.state
    state.check_may_continue()
    if step.step_record is None:
        step.step_record = step.record_as(
            StepStatus.RUNNING,
            started_at=clock.now(),
            detail={"size": len(operation.branches)},  # to show the progress
        )
        state.recorder.defer(step.step_record)
    counter = BranchCounter(step, operation)
    state.history.replay_below(*(counter.keys[index] for index in counter.ended))
    branches = [functools.partial(_branch, step, counter, i) for i in counter.scopes]
    yield RunBranches(
        branches, operation.max_concurrency, counter.decided, counter.discard_unfinished
    )
    if not counter.decided():
        raise Suspend
    if counter.unfinished():
        step_record = state.recorder.write(lambda: _decide(step, counter))
    else:
        step_record = counter.decided_record(step)
        yield from step.write(step_record)
    state.suspend_if_always()
    return parallel_result(step, step_record)


class _BranchOperation(ops.Operation):
    """The operation of a branch, for its record."""

    kind = BRANCH


def _branch(step: StepCall, counter: BranchCounter, index: int) -> Plan:
    """Drive one branch until it ends or suspends; return whether it is suspended."""
    scope, started = counter.scopes[index], clock.now()
    with entered(scope):
        inner = _branch_step(step, counter, index, started)
    if inner is None:
        return True
    call, name = counter.calls[index], counter.names[index]
    outcome: BodyOutcome = yield CallBranch(call, name, scope, inner.lines)
    if outcome.error is not None and is_suspension(outcome.error):
        return True
    waits = yield from _record_branch(inner, outcome, started)
    counter.add(index, inner.step_record)
    return waits


def _branch_step(
    step: StepCall, counter: BranchCounter, index: int, started: datetime
) -> StepCall | None:
    """Return a branch as a step; None if it must not continue now."""
    state = step.state
    try:
        state.check_may_continue()
    except Suspend:
        return None
    name, key = counter.names[index], counter.keys[index]
    inner = StepCall(
        state,
        Scope(step.key, concurrent=True, parent=step.scope),
        _BranchOperation(id=name),
        key,
        state.history.replay(key, name, BRANCH),
        branch=counter.scopes[index],
    )
    if waits_for_retry(inner):
        return None
    inner.capture_logs(started)
    call = counter.calls[index]
    if isinstance(call, functools.partial):  # an item of a map
        inner.set_input(call.args, call.keywords)
    if inner.step_record is None:
        inner.step_record = inner.record_as(StepStatus.RUNNING, started_at=started)
        state.recorder.defer(inner.step_record)
    return inner


def _record_branch(inner: StepCall, outcome: BodyOutcome, started: datetime) -> Plan:
    """Record the outcome of a branch; return whether it is suspended."""
    try:
        yield from record_outcome(inner, outcome, started)
        inner.state.suspend_if_always()
    except Suspend:
        return True
    except DurableError:
        return False  # recorded as the failure of the branch, which the policy counts
    return False


def _decide(step: StepCall, counter: BranchCounter) -> StepRecord:
    """Record the result, and cancel the open steps of unfinished branches.

    Like all writes, this runs in the attempt's own thread, so no branch ends in
    between.
    """
    state = step.state
    counter.discard_unfinished()
    step_record = counter.decided_record(step)
    keys, suspended = state.recorder.cancel(
        [counter.keys[index] for index in counter.unfinished()]
    )

    def effect() -> StepRecord:
        for item in suspended:
            if item.effect is not None:
                item.effect()
        runs.drop_steps(state.run, keys, finish.announce_end_and_build_handler)
        return step_record

    return state.recorder.record_with(effect)


__all__ = ["BRANCH", "parallel", "parallel_result"]
