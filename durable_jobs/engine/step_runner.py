"""From a call of ``ctx.step`` to its answer: from memory, or by driving its plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation

from durable_jobs import clock
from durable_jobs.definitions import current
from durable_jobs.definitions import operations as ops
from durable_jobs.definitions.approvals import Approve
from durable_jobs.engine import scope
from durable_jobs.engine.async_driver import AsyncDriver
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.effects import Plan, StepCall, answer
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
    """How a kind of step is done, and how its record answers."""

    plan: Callable[[StepCall, Any], Plan]
    read: Callable[[StepCall, StepRecord], Any] = lambda step, memo: answer(memo)


KINDS: dict[type[ops.Operation], StepKind] = {
    ops.RunStep: StepKind(run.run),
    ops.Atomic: StepKind(run.atomic),
    ops.Sleep: StepKind(sleep.sleep),
    ops.WaitForEvent: StepKind(wait.wait, wait.answer),
    ops.WaitForSignal: StepKind(wait.wait, wait.answer),
    ops.WaitForModel: StepKind(wait.wait, wait.answer),
    ops.WaitForAny: StepKind(wait.wait, wait.answer),
    ops.WaitForCallback: StepKind(wait_for_callback.wait),
    ops.WaitForCondition: StepKind(wait_for_condition.wait),
    Approve: StepKind(approve.approve),
    ops.Invoke: StepKind(invoke.invoke),
    ops.StartRun: StepKind(invoke.start),
    ops.SendEvent: StepKind(invoke.send_event),
    ops.Parallel: StepKind(parallel.parallel, parallel.answer),
    ops.Map: StepKind(parallel.parallel, parallel.answer),
}


class StepRunner:
    """Performs operations for one attempt of a ``def`` function."""

    def __init__(self, state: AttemptState) -> None:
        self.state = state

    def __call__(self, operation: ops.Operation) -> Any:
        """Answer a step, or suspend the run."""
        step = self.step_call(operation)
        kind = KINDS[type(operation)]
        if step.memo is not None and step.memo.ended:
            return kind.read(step, step.memo)
        try:
            return drive(kind.plan(step, operation), self.state)
        except Suspend:
            step.scope.whole.left = True
            raise
        except BaseException as error:
            self.state.end_if_over(error)
            raise

    def step_call(self, operation: ops.Operation) -> StepCall:
        """Return the place of a step in the run, and what is recorded there."""
        place = self._place(operation.id)
        key = place.next_key(operation.id)
        memo = self.state.history.replay(key, operation.id, operation.kind)
        if memo is None or not memo.ended:
            self.state.check_committing(operation.id)
        if memo is None:
            self.state.history.check_step_count(operation.id)
        return StepCall(self.state, place, operation, key, memo)

    def _place(self, name: str) -> Scope:
        """Return where a step is called; refuse it where none may be."""
        inside = current.body.get()
        if inside is not None:
            msg = (
                f"Step {name!r} is called inside the body of step {inside!r}. Call it "
                f"beside that one, or use ctx.step.group() or parallel()."
            )
            raise NestedStepError(msg)
        self.state.end_if_over()
        place = scope.current()
        if not place.alive:
            raise BranchDiscarded
        if place.whole.left:
            raise Suspend  # in a ``finally``, or after an ``except BaseException``
        return place

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Scope the names inside the block."""
        place = self._place(name)
        key = place.next_key(name)
        if self.state.history.replay(key, name, GROUP) is None:
            step = StepCall(self.state, place, ops.Operation(id=name), key, None)
            now = clock.now()
            self.state.recorder.defer(
                step.new_memo(GROUP, StepStatus.COMPLETED, started_at=now, ended_at=now)
            )
        with scope.entered(place.group(key)):
            yield


class AsyncStepRunner(StepRunner):
    """Performs operations for one attempt of an ``async def`` function."""

    def __init__(self, state: AttemptState, activity: IdleDetector) -> None:
        super().__init__(state)
        self._activity = activity
        self._driver = AsyncDriver(state, activity)
        self._turns = ResultOrder(activity, state.run.pk, state.history.memos.values())

    def __call__(self, operation: ops.Operation) -> Any:
        """Return what answers a step when it is awaited; its place is taken now."""
        step = self.step_call(operation)
        kind = KINDS[type(operation)]
        if step.memo is not None and step.memo.ended:
            return self._read(kind, step, step.memo)
        return self._drive(step.key, kind.plan(step, operation))

    def told(self) -> None:
        """Let no step wait for its turn behind those that have ended."""
        self._turns.told()

    def at_work(self) -> AbstractContextManager[None]:
        """Let the attempt go on inside the block, though no step does."""
        return self._activity.work()

    async def idle(self) -> None:
        """Wait until no step is at work."""
        await self._activity.idle()

    async def _read(self, kind: StepKind, step: StepCall, memo: StepRecord) -> Any:
        await self._turns.take(step.key)
        try:
            return kind.read(step, memo)
        except SynchronousOnlyOperation:
            # The result refers to rows, which an event loop's thread may not load.
            with self._activity.work():
                return await sync_to_async(kind.read)(step, memo)

    async def _drive(self, key: str, plan: Plan) -> Any:
        # A step that began ends: who awaits it may be cancelled, its record is not
        # lost.
        task = asyncio.ensure_future(self._driver.drive(plan))
        self._activity.watch(task)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            if not scope.current().alive:
                task.cancel()
            raise
        if task.cancelled() or not isinstance(task.exception(), Suspend):
            if not task.cancelled():
                self.state.end_if_over(task.exception())
            await self._turns.take(key)
            return task.result()
        await self._activity.suspend()

    def _place(self, name: str) -> Scope:
        if self._activity.left:
            raise Suspend
        return super()._place(name)
