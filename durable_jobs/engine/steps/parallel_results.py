"""The results of ``parallel`` and ``map``, read from their record alone.

The code may declare other branches by now: a recorded result never changes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from durable_jobs import exceptions, ids
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.completion import First
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.effects import StepCall
from durable_jobs.engine.effects import result_of as result_of
from durable_jobs.engine.errors import rebuild
from durable_jobs.engine.steps.branch_counter import BRANCH_ENDED
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord


def parallel_result(step: StepCall, step_record: StepRecord) -> Any:
    """Return the results of the recorded choice, or raise ``ParallelError``."""
    state, operation = step.state, step.operation
    assert isinstance(operation, ops.Parallel)
    state.history.replay_below(step_record.key)
    if step_record.status == StepStatus.FAILED:
        error = rebuild(step_record.error or {}, step_record.name, step_record.key)
        assert isinstance(error, exceptions.ParallelError)
        error.results = _all_results(state, step_record)
        raise error
    if operation.return_exceptions:
        return _all_results(state, step_record)
    chosen = (step_record.detail or {})["chosen"]
    if isinstance(operation.completion, First):
        return _result(state, step_record, chosen[0])
    return _results(state, step_record, chosen)


def _all_results(state: AttemptState, step_record: StepRecord) -> Any:
    """Return the result, exception or ``BranchCancelled`` of every branch."""
    return _results(state, step_record, (step_record.detail or {})["branches"])


def _results(state: AttemptState, step_record: StepRecord, names: Iterable[str]) -> Any:
    results = {name: _result(state, step_record, name) for name in names}
    return results if (step_record.detail or {})["named"] else list(results.values())


def _result(state: AttemptState, step_record: StepRecord, name: str) -> Any:
    """Return a branch's result, or its error as a value."""
    branch = state.history.step_records.get(ids.step_key(name, step_record.key))
    if branch is None or branch.status not in BRANCH_ENDED:
        return exceptions.BranchCancelled()
    try:
        return result_of(branch)
    except exceptions.ParallelError as error:
        inner = state.history.step_records.get((branch.error or {}).get("step", ""))
        if inner is not None and "branches" in (inner.detail or {}):
            error.results = _all_results(state, inner)
        return error
    except exceptions.DurableError as error:
        return error
