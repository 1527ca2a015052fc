"""Going on with plans outside of the event loop: all that wait at once, in one go.

The way out of the loop and back takes longer than most plans need there. And what
several plans want recorded at the same time is one commit.
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
from durable_jobs.engine.suspend import DatabaseFailed, is_over


@dataclass(frozen=True, slots=True)
class Finished:
    """A plan has returned, or raised."""

    value: Any = None
    error: BaseException | None = None


class _Turn:
    """A plan that waits to go on, with the answer to what it last wanted."""

    def __init__(self, plan: Plan, answer: Any) -> None:
        self.plan = plan
        self.answer = answer
        self.context = contextvars.copy_context()
        self.future: asyncio.Future[Effect | Finished]
        self.future = asyncio.get_running_loop().create_future()
        self.effect: Effect | Finished = Finished()

    def take(self) -> None:
        """Go one step in the plan; an error is a value, for it crosses threads."""
        try:
            self.effect = self.context.run(self.plan.send, self.answer)
        except StopIteration as stop:
            self.effect = Finished(stop.value)
        except BaseException as error:  # noqa: BLE001  # raised again by the caller
            self.effect = Finished(error=error)
        self.answer = None


class PlanBatcher:
    """Lets the plans of one attempt go on, on the thread that began it."""

    def __init__(self, state: AttemptState) -> None:
        self._state = state
        # What is logged or told while records are made is no branch's own.
        self._context = contextvars.copy_context()
        self._waiting: list[_Turn] = []
        self._going: asyncio.Task[None] | None = None

    async def advance(self, plan: Plan, answer: Any) -> Effect | Finished:
        """Go on with a plan until it wants something that the loop has to do."""
        turn = _Turn(plan, answer)
        self._waiting.append(turn)
        if self._going is None:
            loop = asyncio.get_running_loop()
            self._going = loop.create_task(self._go(), context=self._context)
        return await turn.future

    async def _go(self) -> None:
        turns: list[_Turn] = []
        try:
            while self._waiting:
                turns, self._waiting = self._waiting, []
                try:
                    await sync_to_async(self._advance)(turns)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001  # as signals raise it
                    _end(turns, _over(error))
                for turn in turns:
                    if not turn.future.done():  # whose task was cancelled meanwhile
                        turn.future.set_result(turn.effect)
        finally:
            self._going = None
            for turn in turns:
                turn.future.cancel()  # if this was: nobody else would tell them

    def _advance(self, turns: Sequence[_Turn]) -> None:
        going = self._untroubled(turns)
        while going:
            over = self._taken(going)
            writing = [turn for turn in going if isinstance(turn.effect, RecordStep)]
            # A database that failed one plan may yet take what others have done.
            if over is None or isinstance(over, DatabaseFailed):
                going, failed = self._written(writing)
                over = failed or over
            if over is not None:
                _end(turns, over)
                return

    def _untroubled(self, turns: Sequence[_Turn]) -> Sequence[_Turn]:
        """Return the turns that may go on: no record is made in what is left open.

        The code that awaits shares this thread's connections with the engine. Bodies
        that have just ended answer for them, without any the code that called us.
        """
        whose = f"Function {self._state.function.id!r}, or the body of a step in it,"
        trouble = self._state.guard.end(whose, reported=False)
        if trouble is None:
            return turns
        bodies = [turn for turn in turns if isinstance(turn.answer, BodyOutcome)]
        for turn in bodies:
            if turn.answer.error is None:
                turn.answer = BodyOutcome(error=trouble)
        if bodies:
            return turns
        for turn in turns:
            turn.effect = Finished(error=trouble)
        return ()

    def _taken(self, turns: Sequence[_Turn]) -> BaseException | None:
        """Take turns; return what has ended the attempt, if something has."""
        for turn in turns:
            turn.take()
            if isinstance(turn.effect, RecordStep):
                self._state.history.reserve(turn.effect.memo)
            elif isinstance(turn.effect, Finished) and is_over(turn.effect.error):
                return turn.effect.error
        return None

    def _written(
        self, turns: Sequence[_Turn]
    ) -> tuple[list[_Turn], BaseException | None]:
        """Record what plans want recorded.

        Return those that go on after that, and what has ended the attempt.
        """
        writes = [turn.effect for turn in turns if isinstance(turn.effect, RecordStep)]
        errors = self._state.recorder.record_together(
            [(write.memo, write.scope) for write in writes]
        )
        for turn, error in zip(turns, errors, strict=True):
            turn.effect = Finished(error=error)  # or what it wants when it has gone on
        going = [
            turn for turn, error in zip(turns, errors, strict=True) if error is None
        ]
        return going, next((error for error in errors if is_over(error)), None)


def _over(error: BaseException) -> BaseException:
    """Return an error that ends the attempt for what has struck between two plans."""
    if is_over(error):
        return error
    failed = DatabaseFailed()
    failed.__cause__ = error
    return failed


def _end(turns: Sequence[_Turn], error: BaseException) -> None:
    """End plans by what has ended the attempt."""
    for turn in turns:
        turn.effect = Finished(error=error)
