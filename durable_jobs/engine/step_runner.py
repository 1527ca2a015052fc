"""Run ``ctx.step`` calls: return the recorded result, or drive the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from durable_jobs import clock
from durable_jobs.definitions import execution
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.approvals import Approve
from durable_jobs.engine import scope
from durable_jobs.engine.async_driver import AsyncDriver
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.effects import Plan, StepCall, result_of
from durable_jobs.engine.idle_detection import IdleDetector
from durable_jobs.engine.result_order import ResultOrder
from durable_jobs.engine.scope import Scope
from durable_jobs.engine.steps import (
    approve,
    invoke,
    parallel,
    run,
    sleep,
    wait,
    wait_for_callback,
    wait_for_condition,
)
from durable_jobs.engine.suspend import BranchDiscarded, Suspend
from durable_jobs.engine.sync_driver import drive
from durable_jobs.exceptions import NestedStepError
from durable_jobs.statuses import StepStatus
from durable_jobs.store.steps import StepRecord

GROUP = "group"


@dataclass(frozen=True, slots=True)
class StepKind:
    """How a kind of step is executed, and how its record is read."""

    plan: Callable[[StepCall, Any], Plan]
    read: Callable[[StepCall, StepRecord], Any] = lambda step, step_record: result_of(
        step_record
    )


KINDS: dict[type[ops.Operation], StepKind] = {
    ops.RunStep: StepKind(run.run),
    ops.Atomic: StepKind(run.atomic),
    ops.Sleep: StepKind(sleep.sleep),
    ops.WaitForEvent: StepKind(wait.wait, wait.wait_result),
    ops.WaitForSignal: StepKind(wait.wait, wait.wait_result),
    ops.WaitForModel: StepKind(wait.wait, wait.wait_result),
    ops.WaitForAny: StepKind(wait.wait, wait.wait_result),
    ops.WaitForCallback: StepKind(wait_for_callback.wait),
    ops.WaitForCondition: StepKind(wait_for_condition.wait),
    Approve: StepKind(approve.approve),
    ops.Invoke: StepKind(invoke.invoke),
    ops.StartRun: StepKind(invoke.start),
    ops.SendEvent: StepKind(invoke.send_event),
    ops.Parallel: StepKind(parallel.parallel, parallel.parallel_result),
    ops.Map: StepKind(parallel.parallel, parallel.parallel_result),
}


class StepRunner:
    """Runs the steps of one attempt of a ``def`` function."""

    def __init__(self, state: AttemptState) -> None:
        self.state = state

    def __call__(self, operation: ops.Operation) -> Any:
        """Return the result of a step, or suspend the run."""
        step = self.step_call(operation)
        kind = KINDS[type(operation)]
        if step.step_record is not None and step.step_record.ended:
            return kind.read(step, step.step_record)
        try:
            return drive(kind.plan(step, operation), self.state)
        except Suspend:
            step.scope.root.suspended = True
            raise
        except BaseException as error:
            self.state.reraise_abort_error(error)
            raise

    def step_call(self, operation: ops.Operation) -> StepCall:
        """Return the step at this place of the run, with its record."""
        caller_scope = self._current_scope(operation.id)
        key = caller_scope.next_key(operation.id)
        step_record = self.state.history.replay(key, operation.id, operation.kind)
        if step_record is None or not step_record.ended:
            self.state.check_no_open_transaction(operation.id)
        if step_record is None:
            self.state.history.check_step_count(operation.id)
        return StepCall(self.state, caller_scope, operation, key, step_record)

    def _current_scope(self, name: str) -> Scope:
        """Return the current scope; raise if no step is allowed here."""
        inside = execution.current_body.get()
        if inside is not None:
            msg = (
                f"Step {name!r} is called inside the body of step {inside!r}. Call it "
                f"after that step, or use ctx.step.group() or parallel()."
            )
            raise NestedStepError(msg)
        self.state.reraise_abort_error()
        caller_scope = scope.current_scope()
        if not caller_scope.alive:
            raise BranchDiscarded
        if caller_scope.root.suspended:
            raise Suspend  # a finally block, or code that caught the Suspend
        return caller_scope

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Scope the step ids inside the block."""
        caller_scope = self._current_scope(name)
        key = caller_scope.next_key(name)
        if self.state.history.replay(key, name, GROUP) is None:
            step = StepCall(self.state, caller_scope, ops.Operation(id=name), key, None)
            now = clock.now()
            self.state.recorder.defer(
                step.new_record(
                    GROUP, StepStatus.COMPLETED, started_at=now, ended_at=now
                )
            )
        with scope.entered(caller_scope.group(key)):
            yield


class AsyncStepRunner(StepRunner):
    """Runs the steps of one attempt of an ``async def`` function."""

    def __init__(self, state: AttemptState, idle_detector: IdleDetector) -> None:
        super().__init__(state)
        self._idle_detector = idle_detector
        self._driver = AsyncDriver(state, idle_detector)
        self._order = ResultOrder(
            idle_detector, state.run.pk, state.history.step_records.values()
        )

    def __call__(self, operation: ops.Operation) -> Any:
        """Return an awaitable for a step; the step's key is counted now."""
        step = self.step_call(operation)
        kind = KINDS[type(operation)]
        if step.step_record is not None and step.step_record.ended:
            return self._read(kind, step, step.step_record)
        return self._drive(step.key, kind.plan(step, operation))

    def mark_all_delivered(self) -> None:
        """Ignore the recorded order of results: the function knows all of them."""
        self._order.mark_all_delivered()

    def working(self) -> AbstractContextManager[None]:
        """Keep the attempt running inside the block, even if no step executes."""
        return self._idle_detector.working()

    async def wait_for_steps(self) -> None:
        """Wait until no step executes."""
        await self._idle_detector.wait_for_steps()

    async def _read(
        self, kind: StepKind, step: StepCall, step_record: StepRecord
    ) -> Any:
        await self._order.wait_for(step.key)
        try:
            return kind.read(step, step_record)
        except SynchronousOnlyOperation:
            # The result refers to rows; Django does not load them in an event loop.
            with self._idle_detector.working():
                return await sync_to_async(kind.read)(step, step_record)

    async def _drive(self, key: str, plan: Plan) -> Any:
        # A step that started runs to its end and is recorded, even if the task that
        # awaits it is cancelled.
        task = asyncio.ensure_future(self._driver.drive(plan))
        self._idle_detector.watch(task)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if not scope.current_scope().alive:
                task.cancel()
            raise
        if task.cancelled() or not isinstance(task.exception(), Suspend):
            if not task.cancelled():
                self.state.reraise_abort_error(task.exception())
            await self._order.wait_for(key)
            return task.result()
        await self._idle_detector.suspend()

    def _current_scope(self, name: str) -> Scope:
        if self._idle_detector.closed:
            raise Suspend
        return super()._current_scope(name)
