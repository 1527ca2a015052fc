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
from durable_jobs.engine.retries import not_due, settle
from durable_jobs.engine.scope import Scope, entered
from durable_jobs.engine.steps.branch_counter import BranchCounter
from durable_jobs.engine.steps.parallel_results import answer
from durable_jobs.engine.suspend import Suspend, is_suspension
from durable_jobs.exceptions import DurableError
from durable_jobs.lifecycle import finish
from durable_jobs.statuses import StepStatus
from durable_jobs.store import runs
from durable_jobs.store.steps import StepRecord

BRANCH = "branch"


def parallel(step: StepCall, operation: ops.Parallel) -> Plan:
    """Drive the branches that have not ended, and record what they decide together."""
    state = step.state
    state.check_going()
    if step.memo is None:
        step.memo = step.memo_as(StepStatus.RUNNING, started_at=clock.now())
        state.recorder.defer(step.memo)
    tally = BranchCounter(step, operation)
    state.history.replay_below(*(tally.keys[index] for index in tally.ended))
    branches = [functools.partial(_branch, step, tally, i) for i in tally.scopes]
    yield RunBranches(
        branches, operation.max_concurrency, tally.decided, tally.drop_losers
    )
    if not tally.decided():
        raise Suspend
    if tally.losers():
        memo = state.recorder.write(lambda: _decide(step, tally))
    else:
        memo = tally.verdict(step)
        yield from step.write(memo)
    state.go_on()
    return answer(step, memo)


class _BranchOperation(ops.Operation):
    """What a branch's record says it is."""

    kind = BRANCH


def _branch(step: StepCall, tally: BranchCounter, index: int) -> Plan:
    """Drive one branch to its end or to where it waits; return whether it waits."""
    scope, started = tally.scopes[index], clock.now()
    with entered(scope):
        inner = _begun(step, tally, index, started)
    if inner is None:
        return True
    call, name = tally.calls[index], tally.names[index]
    outcome: BodyOutcome = yield CallBranch(call, name, scope, inner.lines)
    if outcome.error is not None and is_suspension(outcome.error):
        return True
    waits = yield from _record_branch(inner, outcome, started)
    tally.note(index, inner.memo)
    return waits


def _begun(
    step: StepCall, tally: BranchCounter, index: int, started: datetime
) -> StepCall | None:
    """Return a branch as a step of its own; None when it is not to go on now."""
    state = step.state
    try:
        state.check_going()
    except Suspend:
        return None
    name, key = tally.names[index], tally.keys[index]
    inner = StepCall(
        state,
        Scope(step.key, concurrent=True, parent=step.scope),
        _BranchOperation(id=name),
        key,
        state.history.replay(key, name, BRANCH),
        branch=tally.scopes[index],
    )
    if not_due(inner):
        return None
    inner.capture_logs(started)
    call = tally.calls[index]
    if isinstance(call, functools.partial):  # as the items of a map are
        inner.set_input(call.args, call.keywords)
    if inner.memo is None:
        inner.memo = inner.memo_as(StepStatus.RUNNING, started_at=started)
        state.recorder.defer(inner.memo)
    return inner


def _record_branch(inner: StepCall, outcome: BodyOutcome, started: datetime) -> Plan:
    """Record what a branch came to; return whether it waits."""
    try:
        yield from settle(inner, outcome, started)
        inner.state.go_on()
    except Suspend:
        return True
    except DurableError:
        return False  # recorded as the branch's failure; the policy counts it
    return False


def _decide(step: StepCall, tally: BranchCounter) -> StepRecord:
    """Record what the branches came to, and cancel all that the others wait for.

    On the attempt's own thread, as all writes: no branch ends meanwhile.
    """
    state = step.state
    tally.drop_losers()
    memo = tally.verdict(step)
    keys, parked = state.recorder.cancel(
        [tally.keys[index] for index in tally.losers()]
    )

    def effect() -> StepRecord:
        for item in parked:
            if item.effect is not None:
                item.effect()
        runs.drop_steps(state.run, keys, finish.start_handler)
        return memo

    return state.recorder.record_with(effect)


__all__ = ["BRANCH", "answer", "parallel"]
