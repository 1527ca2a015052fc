"""Driving a step's plan in this thread, its branches in threads of their own."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.db import connections

from durable_jobs.engine import body_calls
from durable_jobs.engine.attempt_state import AttemptState
from durable_jobs.engine.awaitables import reject_awaitable
from durable_jobs.engine.effects import (
    BodyOutcome,
    CallBody,
    CallBranch,
    Effect,
    Plan,
    RecordStep,
    RunBranches,
)
from durable_jobs.engine.extra_slots import side_by_side
from durable_jobs.engine.scope import entered
from durable_jobs.engine.suspend import BranchDiscarded, Suspend, is_suspension
from durable_jobs.exceptions import NonDeterminismError
from durable_jobs.logs import kept


def drive(plan: Plan, state: AttemptState) -> Any:
    """Drive a plan to its end in this thread and return what it returns."""
    answer: Any = None
    while True:
        try:
            effect = plan.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = _perform(effect, state)


def _perform(effect: Effect, state: AttemptState) -> Any:
    if isinstance(effect, CallBody):
        return body_calls.run_body(effect, share_connections=not state.threads)
    if isinstance(effect, RecordStep):
        return state.recorder.record(effect.memo, effect.scope)
    if isinstance(effect, CallBranch):
        with entered(effect.scope):
            return _entered(effect)
    return _fork(effect, state)


def _entered(effect: CallBranch) -> BodyOutcome:
    if iscoroutinefunction(effect.fn):
        # Steps of a def function cannot be awaited: this is a body, with none inside.
        call = CallBody(fn=effect.fn, name=effect.name, lines=effect.lines, own=True)
        return body_calls.run_body(call)
    try:
        with kept(effect.lines):
            outcome = checked(body_calls.try_call(effect.fn))
        outcome = reject_awaitable(outcome, f"Branch {effect.name!r}")
    except BaseException as error:
        if is_suspension(error):
            return BodyOutcome(error=Suspend())
        raise
    # Whatever the branch has made of its suspension, it is suspended.
    return BodyOutcome(error=Suspend()) if effect.scope.left else outcome


def checked(outcome: BodyOutcome) -> BodyOutcome:
    """Return what a branch came to; a divergence is the whole run's affair."""
    error = outcome.error
    if error is not None and issubclass(type(error), NonDeterminismError):
        raise error
    return outcome


class BranchQueue:
    """Which branches may begin: in order, as many as ``width``, until decided.

    A branch that is suspended keeps its place.
    """

    def __init__(self, fork: RunBranches) -> None:
        self._waiting = list(reversed(fork.branches))
        self._width = fork.width or len(fork.branches)
        self._decided = fork.decided
        self._taken = 0
        self._lock = threading.Lock()

    def take(self) -> Callable[[], Plan] | None:
        """Return the next branch to begin, or None."""
        with self._lock:
            full = self._taken >= self._width
            if full or not self._waiting or self._decided():
                return None
            self._taken += 1
            return self._waiting.pop()

    def close(self) -> None:
        """Let no further branch begin."""
        with self._lock:
            self._waiting.clear()

    def leave(self, *, suspended: bool) -> None:
        """Give a place back, unless its branch waits."""
        if not suspended:
            with self._lock:
                self._taken -= 1


def _fork(fork: RunBranches, state: AttemptState) -> None:
    places = BranchQueue(fork)
    wanted = min(len(fork.branches), fork.width or len(fork.branches))
    with side_by_side(state, min(state.threads, wanted)) as width:
        if width.count < 2:
            _work(places, state)
        else:
            width.outlasted = _threads(places, width.count, fork, state)


def _work(places: BranchQueue, state: AttemptState) -> None:
    """Drive branches, one after the other, until none may begin."""
    while (branch := places.take()) is not None:
        suspended = drive(branch(), state)
        places.leave(suspended=bool(suspended))


class _BranchThreads:
    """The threads of one fork. ``look`` wakes whoever waits for them."""

    def __init__(self, size: int, state: AttemptState) -> None:
        self.failures: list[BaseException] = []
        self._left = size
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._state = state
        self._served = state.recorder.on_own_thread

    def left(self) -> int:
        """Return how many still work."""
        return self._left

    def leave(self) -> None:
        """Note that a thread has ended."""
        with self._lock:
            self._left -= 1
        self.look()

    def look(self) -> None:
        """Let ``wait`` ask again whether it is done."""
        if self._served:
            self._state.recorder.wake()
        else:
            self._changed.set()

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait; the attempt's own thread makes the others' database calls meanwhile."""
        if self._served:
            self._state.recorder.serve(done)
            return
        while not done():
            self._changed.wait()
            self._changed.clear()


def _threads(
    places: BranchQueue, count: int, fork: RunBranches, state: AttemptState
) -> bool:
    """Drive branches in threads.

    A thread whose body outlasts the decision is left behind: it can write nothing.
    Tell whether there is one.
    """
    crew = _BranchThreads(count, state)

    def work() -> None:
        try:
            while (branch := places.take()) is not None:
                suspended = drive(branch(), state)
                places.leave(suspended=bool(suspended))
                crew.look()
        except BranchDiscarded:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again by the own thread
            places.close()
            crew.failures.append(error)
        finally:
            try:
                connections.close_all()
            finally:
                crew.leave()

    for number in range(count):
        run = contextvars.copy_context().run
        name = f"branch {number}"
        threading.Thread(target=run, args=(work,), name=name, daemon=True).start()
    crew.wait(lambda: not crew.left() or bool(crew.failures) or fork.decided())
    if crew.failures:
        raise crew.failures[0]
    return bool(crew.left())
