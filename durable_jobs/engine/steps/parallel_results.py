"""What ``parallel`` and ``map`` answer: read from their record alone.

The branches that the code has by now may be others: a recorded result never changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from durable_jobs import exceptions, ids
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.completion import First
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.effects import StepCall
from durable_jobs.engine.effects import result_of as plain
from durable_jobs.engine.errors import rebuild
from durable_jobs.engine.steps.branch_counter import ENDS
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord


def answer(step: StepCall, memo: StepRecord) -> Any:
    """Return the results in the recorded choice, or raise ``ParallelError``."""
    state, operation = step.state, step.operation
    assert isinstance(operation, ops.Parallel)
    state.history.replay_below(memo.key)
    if memo.status == StepStatus.FAILED:
        error = rebuild(memo.error or {}, memo.name, memo.key)
        assert isinstance(error, exceptions.ParallelError)
        error.results = _all(state, memo)
        raise error
    if operation.return_exceptions:
        return _all(state, memo)
    chosen = (memo.detail or {})["chosen"]
    if isinstance(operation.completion, First):
        return _result(state, memo, chosen[0])
    return _some(state, memo, chosen)


def _all(state: AttemptState, memo: StepRecord) -> Any:
    """Return every branch's result, exception or ``Cancelled``."""
    return _some(state, memo, (memo.detail or {})["branches"])


def _some(state: AttemptState, memo: StepRecord, names: Iterable[str]) -> Any:
    results = {name: _result(state, memo, name) for name in names}
    return results if (memo.detail or {})["named"] else list(results.values())


def _result(state: AttemptState, memo: StepRecord, name: str) -> Any:
    """Return a branch's result, or its error as a value."""
    branch = state.history.memos.get(ids.step_key(name, memo.key))
    if branch is None or branch.status not in ENDS:
        return exceptions.BranchCancelled()
    try:
        return plain(branch)
    except exceptions.ParallelError as error:
        inner = state.history.memos.get((branch.error or {}).get("step", ""))
        if inner is not None and inner.detail is not None:
            error.results = _all(state, inner)
        return error
    except exceptions.DurableError as error:
        return error
