"""Drive a plan in this thread, and its branches in threads of their own."""

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
from durable_jobs.engine.extra_slots import parallel_width
from durable_jobs.engine.scope import entered
from durable_jobs.engine.suspend import BranchDiscarded, Suspend, is_suspension
from durable_jobs.exceptions import NonDeterminismError
from durable_jobs.logs import capturing


def drive(plan: Plan, state: AttemptState) -> Any:
    """Drive a plan to its end in this thread and return its result."""
    result: Any = None
    while True:
        try:
            effect = plan.send(result)
        except StopIteration as stop:
            return stop.value
        result = _run_effect(effect, state)


def _run_effect(effect: Effect, state: AttemptState) -> Any:
    if isinstance(effect, CallBody):
        return body_calls.run_body(effect, share_connections=not state.threads)
    if isinstance(effect, RecordStep):
        return state.recorder.record(effect.step_record, effect.scope)
    if isinstance(effect, CallBranch):
        with entered(effect.scope):
            return _call_branch(effect)
    return _run_branches(effect, state)


def _call_branch(effect: CallBranch) -> BodyOutcome:
    if iscoroutinefunction(effect.fn):
        # A def function cannot await steps: the branch is one body, without steps.
        call = CallBody(
            fn=effect.fn, name=effect.name, lines=effect.lines, is_engine_code=True
        )
        return body_calls.run_body(call)
    try:
        with capturing(effect.lines):
            outcome = raise_divergence(body_calls.try_call(effect.fn))
        outcome = reject_awaitable(outcome, f"Branch {effect.name!r}")
    except BaseException as error:
        if is_suspension(error):
            return BodyOutcome(error=Suspend())
        raise
    # The branch is suspended even if it caught the Suspend exception.
    return BodyOutcome(error=Suspend()) if effect.scope.suspended else outcome


def raise_divergence(outcome: BodyOutcome) -> BodyOutcome:
    """Return the outcome of a branch; raise if it is a ``NonDeterminismError``."""
    error = outcome.error
    if error is not None and issubclass(type(error), NonDeterminismError):
        raise error
    return outcome


class BranchQueue:
    """Start branches in order, at most ``width`` at a time, until decided.

    A suspended branch keeps its place.
    """

    def __init__(self, fork: RunBranches) -> None:
        self._waiting = list(reversed(fork.branches))
        self._width = fork.width or len(fork.branches)
        self._decided = fork.decided
        self._started = 0
        self._lock = threading.Lock()

    def take(self) -> Callable[[], Plan] | None:
        """Return the next branch to start, or None."""
        with self._lock:
            full = self._started >= self._width
            if full or not self._waiting or self._decided():
                return None
            self._started += 1
            return self._waiting.pop()

    def close(self) -> None:
        """Start no further branch."""
        with self._lock:
            self._waiting.clear()

    def leave(self, *, suspended: bool) -> None:
        """Free a place, unless its branch is suspended."""
        if not suspended:
            with self._lock:
                self._started -= 1


def _run_branches(fork: RunBranches, state: AttemptState) -> None:
    branches = BranchQueue(fork)
    wanted = min(len(fork.branches), fork.width or len(fork.branches))
    with parallel_width(state, min(state.threads, wanted)) as width:
        if width.count < 2:
            _drive_branches(branches, state)
        else:
            width.threads_left = _drive_in_threads(branches, width.count, fork, state)


def _drive_branches(branches: BranchQueue, state: AttemptState) -> None:
    """Drive branches one after the other until none may start."""
    while (branch := branches.take()) is not None:
        suspended = drive(branch(), state)
        branches.leave(suspended=bool(suspended))


class _BranchThreads:
    """The threads of one ``RunBranches`` effect."""

    def __init__(self, size: int, state: AttemptState) -> None:
        self.failures: list[BaseException] = []
        self._running = size
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._state = state
        self._serves = state.recorder.on_own_thread

    def running(self) -> int:
        """Return how many threads are running."""
        return self._running

    def leave(self) -> None:
        """Count a thread as ended."""
        with self._lock:
            self._running -= 1
        self.wake()

    def wake(self) -> None:
        """Make ``wait`` check again whether it is done."""
        if self._serves:
            self._state.recorder.wake()
        else:
            self._changed.set()

    def wait(self, done: Callable[[], bool]) -> None:
        """Wait until ``done``.

        The attempt's own thread serves database calls while it waits.
        """
        if self._serves:
            self._state.recorder.serve(done)
            return
        while not done():
            self._changed.wait()
            self._changed.clear()


def _drive_in_threads(
    branches: BranchQueue, count: int, fork: RunBranches, state: AttemptState
) -> bool:
    """Drive branches in threads; return whether a thread still runs.

    A thread whose body outlasts the decision is abandoned. It can write nothing.
    """
    threads = _BranchThreads(count, state)

    def work() -> None:
        try:
            while (branch := branches.take()) is not None:
                suspended = drive(branch(), state)
                branches.leave(suspended=bool(suspended))
                threads.wake()
        except BranchDiscarded:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again by the own thread
            branches.close()
            threads.failures.append(error)
        finally:
            try:
                connections.close_all()
            finally:
                threads.leave()

    for number in range(count):
        run = contextvars.copy_context().run
        name = f"branch {number}"
        threading.Thread(target=run, args=(work,), name=name, daemon=True).start()
    threads.wait(
        lambda: not threads.running() or bool(threads.failures) or fork.decided()
    )
    if threads.failures:
        raise threads.failures[0]
    return bool(threads.running())
