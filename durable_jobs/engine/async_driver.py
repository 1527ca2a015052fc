"""Driving a step's plan in an event loop; its database calls are made outside."""

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
from durable_jobs.engine.extra_slots import widen
from durable_jobs.engine.idle_detection import IdleDetector
from durable_jobs.engine.plan_batches import Finished, PlanBatcher
from durable_jobs.engine.scope import entered
from durable_jobs.engine.suspend import Suspend, is_suspension
from durable_jobs.engine.sync_driver import BranchQueue, checked
from durable_jobs.logs import kept


class AsyncDriver:
    """Drives the plans of one attempt of an ``async def`` function."""

    def __init__(self, state: AttemptState, activity: IdleDetector) -> None:
        self._state = state
        self._activity = activity
        self._advancer = PlanBatcher(state)
        # As many bodies in threads as a def function has branches in them; where steps
        # are limited one, and as many more as there are slots for.
        most = max(state.threads, 1)
        self._places = asyncio.Semaphore(1 if state.limited else most)
        self._more = most - 1 if state.limited else 0

    async def drive(self, plan: Plan) -> Any:
        """Drive a plan to its end and return what it returns."""
        answer: Any = None
        while True:
            with self._activity.work():
                effect = await self._advancer.advance(plan, answer)
            if not isinstance(effect, Finished):
                answer = await self._perform(effect)
            elif effect.error is not None:
                raise effect.error
            else:
                return effect.value

    async def _perform(self, effect: Effect) -> Any:
        if isinstance(effect, CallBody):
            with self._activity.work():
                return await self._call(effect)
        if isinstance(effect, CallBranch):
            with entered(effect.scope):
                return await _enter(effect)
        assert isinstance(effect, RunBranches), "what is to be written has been"
        return await self._fork(effect)

    async def _call(self, call: CallBody) -> BodyOutcome:
        if not self._state.limited:
            return await self._perform_body(call)
        async with self._limited_place():
            return await self._perform_body(call)

    @asynccontextmanager
    async def _limited_place(self) -> AsyncIterator[None]:
        """Wait for a place among the bodies that have slots, or for another slot."""
        if self._places.locked() and self._more:
            self._more -= 1
            if await sync_to_async(widen)(self._state, 1):
                self._places.release()
            else:
                self._more += 1
        async with self._places:
            yield

    async def _perform_body(self, call: CallBody) -> BodyOutcome:
        if is_async(body_calls.body_of(call)):
            return await body_calls.run_body_async(call)
        began = clock.monotonic()
        outcome = await self._perform_in_thread(call)
        if call.own or not is_awaitable(outcome):
            return outcome
        spent = clock.monotonic() - began
        return await body_calls.await_body(call, lambda: outcome.value, spent)

    async def _perform_in_thread(self, call: CallBody) -> BodyOutcome:
        threads = self._state.threads
        # In tests everything is in one thread, whose connection holds their
        # transaction.
        if call.own or not threads:
            perform = sync_to_async(body_calls.run_body)
            return await perform(call, share_connections=not threads, awaits=True)
        if self._state.limited:
            return await _in_thread(call)
        async with self._places:
            return await _in_thread(call)

    async def _fork(self, fork: RunBranches) -> None:
        places = BranchQueue(fork)
        width = min(len(fork.branches), fork.width or len(fork.branches))
        crew = {asyncio.ensure_future(self._work(places)) for _ in range(width)}
        try:
            # Who decides finds nothing more to begin, and ends.
            while crew and not fork.decided():
                done, crew = await asyncio.wait(
                    crew, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    task.result()
        finally:
            if fork.decided():
                fork.drop()
            for task in crew:
                task.cancel()
            await asyncio.gather(*crew, return_exceptions=True)

    async def _work(self, places: BranchQueue) -> None:
        while (branch := places.take()) is not None:
            suspended = await self.drive(branch())
            places.leave(suspended=bool(suspended))


async def _enter(effect: CallBranch) -> BodyOutcome:
    try:
        with kept(effect.lines):
            return checked(await body_calls.try_call_async(effect.fn))
    except BaseException as error:
        if is_suspension(error):
            return BodyOutcome(error=Suspend())
        raise


async def _in_thread(call: CallBody) -> BodyOutcome:
    """Call a body in a thread of its own, whose end nobody has to wait for."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[BodyOutcome] = loop.create_future()

    def deliver(outcome: BodyOutcome | None, error: BaseException | None) -> None:
        if ended.done():
            return
        if outcome is not None:
            ended.set_result(outcome)
        elif error is not None:
            ended.set_exception(error)

    def work() -> None:
        outcome, failure = None, None
        try:
            outcome = body_calls.run_body(call, awaits=True)
        except BaseException as error:  # noqa: BLE001  # raised again where it is awaited
            failure = error
        finally:
            connections.close_all()
        try:
            loop.call_soon_threadsafe(deliver, outcome, failure)
        except RuntimeError:
            return  # the loop is closed: the attempt has ended without this body

    run = contextvars.copy_context().run
    name = f"step {call.name}"
    threading.Thread(target=run, args=(work,), name=name, daemon=True).start()
    return await ended
