"""Advance all waiting plans in one trip out of the event loop.

The trip to the thread of the attempt and back takes longer than most plans do there.
Steps that several plans record at the same time share one commit.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async

from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.effects import BodyOutcome, Effect, Plan, RecordStep
from durable_jobs.engine.suspend import DatabaseFailed, ends_attempt


@dataclass(frozen=True, slots=True)
class Finished:
    """A plan has returned or raised."""

    value: Any = None
    error: BaseException | None = None


class _PendingPlan:
    """A plan that waits to continue, with the result of its last effect."""

    def __init__(self, plan: Plan, value: Any) -> None:
        self.plan = plan
        self.value = value
        self.context = contextvars.copy_context()
        self.future: asyncio.Future[Effect | Finished]
        self.future = asyncio.get_running_loop().create_future()
        self.effect: Effect | Finished = Finished()

    def send(self) -> None:
        """Advance the plan to its next effect; an error is kept for the loop."""
        try:
            self.effect = self.context.run(self.plan.send, self.value)
        except StopIteration as stop:
            self.effect = Finished(stop.value)
        except BaseException as error:  # noqa: BLE001  # raised again by the caller
            self.effect = Finished(error=error)
        self.value = None


class PlanBatcher:
    """Advances the plans of one attempt in the thread that began it."""

    def __init__(self, state: AttemptState) -> None:
        self._state = state
        # Outside of all branches, for logs and signals while records are written.
        self._context = contextvars.copy_context()
        self._pending: list[_PendingPlan] = []
        self._task: asyncio.Task[None] | None = None

    async def advance(self, plan: Plan, value: Any) -> Effect | Finished:
        """Advance a plan until it needs the event loop, or finishes."""
        pending = _PendingPlan(plan, value)
        self._pending.append(pending)
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), context=self._context)
        return await pending.future

    async def _run(self) -> None:
        plans: list[_PendingPlan] = []
        try:
            while self._pending:
                plans, self._pending = self._pending, []
                try:
                    await sync_to_async(self._advance)(plans)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001  # e.g. SystemExit in a signal handler
                    _fail_all(plans, _abort_error(error))
                for plan in plans:
                    if not plan.future.done():  # else its task was cancelled
                        plan.future.set_result(plan.effect)
        finally:
            self._task = None
            for plan in plans:
                plan.future.cancel()  # only if this task was cancelled

    def _advance(self, plans: Sequence[_PendingPlan]) -> None:
        active = self._without_open_state(plans)
        while active:
            abort_error = self._send_all(active)
            writing = [plan for plan in active if isinstance(plan.effect, RecordStep)]
            # The database failed one plan; it may still record the steps of others.
            if abort_error is None or isinstance(abort_error, DatabaseFailed):
                active, failed = self._record_all(writing)
                abort_error = failed or abort_error
            if abort_error is not None:
                _fail_all(plans, abort_error)
                return

    def _without_open_state(
        self, plans: Sequence[_PendingPlan]
    ) -> Sequence[_PendingPlan]:
        """Return the plans that may continue, with no open state on the connections.

        Your project's async code shares this thread's connections with the engine. If
        it leaves a transaction open, the bodies that have just ended fail. Without such
        a body, all plans fail.
        """
        whose = f"Function {self._state.function.id!r}, or the body of a step in it,"
        guard_error = self._state.guard.end(whose, reported=False)
        if guard_error is None:
            return plans
        bodies = [plan for plan in plans if isinstance(plan.value, BodyOutcome)]
        for plan in bodies:
            if plan.value.error is None:
                plan.value = BodyOutcome(error=guard_error)
        if bodies:
            return plans
        for plan in plans:
            plan.effect = Finished(error=guard_error)
        return ()

    def _send_all(self, plans: Sequence[_PendingPlan]) -> BaseException | None:
        """Advance plans; return the error that ended the attempt, if any."""
        for plan in plans:
            plan.send()
            if isinstance(plan.effect, RecordStep):
                self._state.history.reserve(plan.effect.step_record)
            elif isinstance(plan.effect, Finished) and ends_attempt(plan.effect.error):
                return plan.effect.error
        return None

    def _record_all(
        self, plans: Sequence[_PendingPlan]
    ) -> tuple[list[_PendingPlan], BaseException | None]:
        """Record the steps of plans in one commit.

        Return the plans that may continue, and the error that ended the attempt.
        """
        writes = [plan.effect for plan in plans if isinstance(plan.effect, RecordStep)]
        errors = self._state.recorder.record_together(
            [(write.step_record, write.scope) for write in writes]
        )
        for plan, error in zip(plans, errors, strict=True):
            plan.effect = Finished(error=error)  # replaced when the plan continues
        active = [
            plan for plan, error in zip(plans, errors, strict=True) if error is None
        ]
        return active, next((error for error in errors if ends_attempt(error)), None)


def _abort_error(error: BaseException) -> BaseException:
    """Return the error that ends the attempt after an exception between two plans."""
    if ends_attempt(error):
        return error
    failed = DatabaseFailed()
    failed.__cause__ = error
    return failed


def _fail_all(plans: Sequence[_PendingPlan], error: BaseException) -> None:
    """Finish plans with the error that ended the attempt."""
    for plan in plans:
        plan.effect = Finished(error=error)
