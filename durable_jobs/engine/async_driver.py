"""Drive a plan in an event loop; database calls are made in the attempt's thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from durable_jobs import clock
from durable_jobs.engine import body_calls
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.awaitables import is_async, is_awaitable
from durable_jobs.engine.effects import (
    BodyOutcome,
    CallBody,
    CallBranch,
    Effect,
    Plan,
    RunBranches,
)
from durable_jobs.engine.extra_slots import acquire_slots
from durable_jobs.engine.idle_detection import IdleDetector
from durable_jobs.engine.plan_batches import Finished, PlanBatcher
from durable_jobs.engine.scope import entered
from durable_jobs.engine.suspend import Suspend, is_suspension
from durable_jobs.engine.sync_driver import BranchQueue, raise_divergence
from durable_jobs.logs import capturing


class AsyncDriver:
    """Drives the plans of one attempt of an ``async def`` function."""

    def __init__(self, state: AttemptState, idle_detector: IdleDetector) -> None:
        self._state = state
        self._idle_detector = idle_detector
        self._batcher = PlanBatcher(state)
        # How many bodies execute in threads: as many as a def function has branches in
        # threads. If a limit counts steps, one, and one more per slot acquired.
        max_threads = max(state.threads, 1)
        self._threads = asyncio.Semaphore(1 if state.holds_slots else max_threads)
        self._extra_slots = max_threads - 1 if state.holds_slots else 0

    async def drive(self, plan: Plan) -> Any:
        """Drive a plan to its end and return its result."""
        result: Any = None
        while True:
            with self._idle_detector.working():
                effect = await self._batcher.advance(plan, result)
            if not isinstance(effect, Finished):
                result = await self._run_effect(effect)
            elif effect.error is not None:
                raise effect.error
            else:
                return effect.value

    async def _run_effect(self, effect: Effect) -> Any:
        if isinstance(effect, CallBody):
            with self._idle_detector.working():
                return await self._call(effect)
        if isinstance(effect, CallBranch):
            with entered(effect.scope):
                return await _call_branch(effect)
        assert isinstance(effect, RunBranches), "the batcher records steps"
        return await self._run_branches(effect)

    async def _call(self, call: CallBody) -> BodyOutcome:
        if not self._state.holds_slots:
            return await self._call_body(call)
        async with self._slot_for_body():
            return await self._call_body(call)

    @asynccontextmanager
    async def _slot_for_body(self) -> AsyncIterator[None]:
        """Wait for a thread that has a slot, or acquire another slot."""
        if self._threads.locked() and self._extra_slots:
            self._extra_slots -= 1
            if await sync_to_async(acquire_slots)(self._state, 1):
                self._threads.release()
            else:
                self._extra_slots += 1
        async with self._threads:
            yield

    async def _call_body(self, call: CallBody) -> BodyOutcome:
        if is_async(body_calls.body_of(call)):
            return await body_calls.run_body_async(call)
        began = clock.monotonic()
        outcome = await self._call_in_thread(call)
        if call.is_engine_code or not is_awaitable(outcome):
            return outcome
        spent = clock.monotonic() - began
        return await body_calls.await_body(call, lambda: outcome.value, spent)

    async def _call_in_thread(self, call: CallBody) -> BodyOutcome:
        threads = self._state.threads
        # Tests execute everything in one thread: its connection has the transaction
        # of the test open.
        if call.is_engine_code or not threads:
            run = sync_to_async(body_calls.run_body)
            return await run(call, share_connections=not threads, awaits=True)
        if self._state.holds_slots:
            return await _in_thread(call)
        async with self._threads:
            return await _in_thread(call)

    async def _run_branches(self, fork: RunBranches) -> None:
        branches = BranchQueue(fork)
        width = min(len(fork.branches), fork.width or len(fork.branches))
        tasks = {
            asyncio.ensure_future(self._drive_branches(branches)) for _ in range(width)
        }
        try:
            # Once decided, tasks start no further branch.
            while tasks and not fork.decided():
                done, tasks = await asyncio.wait(
                    tasks, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            if fork.decided():
                fork.discard_unfinished()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _drive_branches(self, branches: BranchQueue) -> None:
        while (branch := branches.take()) is not None:
            suspended = await self.drive(branch())
            branches.leave(suspended=bool(suspended))


async def _call_branch(effect: CallBranch) -> BodyOutcome:
    try:
        with capturing(effect.lines):
            return raise_divergence(await body_calls.try_call_async(effect.fn))
    except BaseException as error:
        if is_suspension(error):
            return BodyOutcome(error=Suspend())
        raise


async def _in_thread(call: CallBody) -> BodyOutcome:
    """Call a body in its own thread; cancelling this coroutine does not wait for it."""
    loop = asyncio.get_running_loop()
    outcome_future: asyncio.Future[BodyOutcome] = loop.create_future()

    def deliver(outcome: BodyOutcome | None, error: BaseException | None) -> None:
        if outcome_future.done():
            return
        if outcome is not None:
            outcome_future.set_result(outcome)
        elif error is not None:
            outcome_future.set_exception(error)

    def work() -> None:
        outcome, failure = None, None
        try:
            outcome = body_calls.run_body(call, awaits=True)
        except BaseException as error:  # noqa: BLE001  # raised again in the event loop
            failure = error
        finally:
            connections.close_all()
        try:
            loop.call_soon_threadsafe(deliver, outcome, failure)
        except RuntimeError:
            return  # the loop is closed: the attempt has ended

    run = contextvars.copy_context().run
    name = f"step {call.name}"
    threading.Thread(target=run, args=(work,), name=name, daemon=True).start()
    return await outcome_future
