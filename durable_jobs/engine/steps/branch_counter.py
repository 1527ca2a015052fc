"""Count the branches of a parallel step, and decide when the step is done."""

from __future__ import annotations

from collections.abc import Iterable

from durable_jobs import clock, ids
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.completion import AtLeast, First, Tolerate
from durable_jobs.engine.effects import StepCall
from durable_jobs.engine.errors import ErrorRecord
from durable_jobs.engine.scope import Scope
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord

BRANCH_ENDED = frozenset({StepStatus.COMPLETED, StepStatus.FAILED})


class BranchCounter:
    """The branches of one step. ``scopes`` has those of unfinished branches."""

    def __init__(self, step: StepCall, operation: ops.Parallel) -> None:
        self._step_records = step.state.history.step_records
        self._operation = operation
        self.names = [name for name, _ in operation.branches]
        self.calls = [call for _, call in operation.branches]
        self.keys = [ids.step_key(name, step.key) for name in self.names]
        #: The statuses of the branches that have ended, by index.
        self.ended: dict[int, str] = {}
        for index in self._indexes():
            self.add(index, self._step_records.get(self.keys[index]))
        self.scopes: dict[int, Scope] = {
            index: step.scope.branch(self.keys[index])
            for index in self._indexes()
            if index not in self.ended
        }

    def _indexes(self) -> Iterable[int]:
        return range(len(self.keys))

    def add(self, index: int, step_record: StepRecord | None) -> None:
        """Count a branch, if it has ended."""
        if step_record is not None and step_record.status in BRANCH_ENDED:
            self.ended[index] = step_record.status

    def unfinished(self) -> list[int]:
        """Return the branches that have not ended."""
        return [index for index in self._indexes() if index not in self.ended]

    def is_met(self) -> bool:
        """Return whether the policy is met, whatever the other branches do."""
        succeeded, failed = self._count()
        policy = self._operation.completion
        if isinstance(policy, First):
            return succeeded >= 1
        if isinstance(policy, AtLeast):
            return succeeded >= policy.n
        return succeeded + failed == len(self.keys) and not self.is_broken()

    def is_broken(self) -> bool:
        """Return whether the policy cannot be met any more."""
        _, failed = self._count()
        policy, total = self._operation.completion, len(self.keys)
        if isinstance(policy, First):
            return failed == total
        if isinstance(policy, AtLeast):
            return total - failed < policy.n
        if isinstance(policy, Tolerate):
            return failed > policy.allowed(total)
        return failed > 0 and not self._operation.return_exceptions

    def _count(self) -> tuple[int, int]:
        ends = list(self.ended.values())
        failed = ends.count(StepStatus.FAILED)
        return len(ends) - failed, failed

    def decided(self) -> bool:
        """Return whether the unfinished branches cannot change the result."""
        return self.is_met() or self.is_broken()

    def discard_unfinished(self) -> None:
        """Discard the branches that have not ended: they record nothing more."""
        for index, scope in self.scopes.items():
            if index not in self.ended:
                scope.discarded = True

    def decided_record(self, step: StepCall) -> StepRecord:
        """Return the record of the decided step."""
        is_broken = self.is_broken()
        return step.record_as(
            StepStatus.FAILED if is_broken else StepStatus.COMPLETED,
            ended_at=clock.now(),
            output="null",
            error=self._error(step.name) if is_broken else None,
            detail={
                "named": self._operation.named,
                "branches": self.names,
                "chosen": [self.names[index] for index in self._chosen()],
            },
        )

    def _chosen(self) -> list[int]:
        """Return the successful branches, in order; for ``First`` only the first."""
        done = [
            index
            for index in self._indexes()
            if self.ended.get(index) == StepStatus.COMPLETED
        ]
        if isinstance(self._operation.completion, First):
            return sorted(done, key=self._when)[:1]
        return done

    def _when(self, index: int) -> tuple[object, int]:
        step_record = self._step_records[self.keys[index]]
        return step_record.ended_at, step_record.position

    def _error(self, name: str) -> ErrorRecord:
        failed = [
            self._step_records[self.keys[index]].error or {}
            for index in self._indexes()
            if self.ended.get(index) == StepStatus.FAILED
        ]
        first = failed[0]
        return {
            "type": "ParallelError",
            "message": (
                f"{len(failed)} of {len(self.keys)} branches of {name!r} failed; the "
                f"first: {first.get('type')}: {first.get('message')}"
            ),
            "raise": "ParallelError",
        }
