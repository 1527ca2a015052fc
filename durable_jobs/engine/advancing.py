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

from durable_jobs.engine.frames import Effect, Plan, Write
from durable_jobs.engine.session import Session
from durable_jobs.engine.suspend import is_over


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


class Advancer:
    """Lets the plans of one attempt go on, on the thread that began it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: list[_Turn] = []
        self._going: asyncio.Task[None] | None = None

    async def advance(self, plan: Plan, answer: Any) -> Effect | Finished:
        """Go on with a plan until it wants something that the loop has to do."""
        turn = _Turn(plan, answer)
        self._waiting.append(turn)
        if self._going is None:
            self._going = asyncio.ensure_future(self._go())
        return await turn.future

    async def _go(self) -> None:
        while self._waiting:
            turns, self._waiting = self._waiting, []
            try:
                await sync_to_async(self._advance)(turns)
            except asyncio.CancelledError:
                raise  # with all that waits for these
            except BaseException as error:  # noqa: BLE001  # as a signal raises it there
                for turn in turns:
                    turn.effect = Finished(error=error)
            for turn in turns:
                if not turn.future.done():  # whose task was cancelled meanwhile
                    turn.future.set_result(turn.effect)
        self._going = None

    def _advance(self, turns: Sequence[_Turn]) -> None:
        going = turns
        while going:
            for turn in going:
                turn.take()
                if _ends_all(turn, turns):
                    return
            going = [turn for turn in going if isinstance(turn.effect, Write)]
            going = self._written(going)

    def _written(self, turns: Sequence[_Turn]) -> list[_Turn]:
        """Record what plans want recorded; return those that go on after that."""
        writes = [turn.effect for turn in turns if isinstance(turn.effect, Write)]
        errors = self._session.record_together(
            [(write.memo, write.scope) for write in writes]
        )
        for turn, error in zip(turns, errors, strict=True):
            if error is not None:
                turn.effect = Finished(error=error)
        return [turn for turn, error in zip(turns, errors, strict=True) if not error]


def _ends_all(ended: _Turn, turns: Sequence[_Turn]) -> bool:
    """Tell whether a plan has ended the attempt, and all others with it."""
    effect = ended.effect
    if not isinstance(effect, Finished) or not is_over(effect.error):
        return False
    for turn in turns:
        turn.effect = effect
    return True
