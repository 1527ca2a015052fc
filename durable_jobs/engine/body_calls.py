"""Calling the body of a step: with its deadline, and with no step inside it."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import functools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.db import connections

from durable_jobs import logs
from durable_jobs.control_flow import EngineControl, let_pass
from durable_jobs.definitions import current
from durable_jobs.durations import format_duration
from durable_jobs.engine import event_loops
from durable_jobs.engine.awaitables import refused
from durable_jobs.engine.effects import BodyOutcome, CallBody
from durable_jobs.engine.isolation import isolated, own_decimals, process_state_kept
from durable_jobs.engine.time_limits import BodyTimeout, interruptible
from durable_jobs.store.connection_state import Guard

#: How often the step whose body is executing has failed before.
attempt: ContextVar[int | None] = ContextVar("durable_attempt", default=None)


#: Seconds that an ``async def`` body is given to end after it was cancelled.
GRACE = 1.0

Substitute = Callable[[str, Callable[..., Any]], Callable[..., Any]]

_substitute: Substitute | None = None


def substitute(hook: Substitute | None) -> Substitute | None:
    """Let ``hook(step, fn)`` choose what each body calls; return the previous hook."""
    global _substitute
    previous, _substitute = _substitute, hook
    return previous


def chosen(call: CallBody) -> Callable[..., Any]:
    """Return what is to be called: the body, or what a test has put in its place."""
    return call.fn if call.own else stubbed(call.name, call.fn)


def stubbed(step: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a test has put in the place of a step's body, or the body."""
    return fn if _substitute is None else _substitute(step, fn)


class _Abandoned(EngineControl):
    """Raised inside a body that nobody waits for any more, to end it."""


@contextmanager
def marked(call: CallBody) -> Iterator[None]:
    """Let the code inside know whose body it is, and keep what it logs."""
    body = current.body.set(call.name)
    number = attempt.set(call.attempt)
    lines = logs.current.set(call.lines)
    try:
        yield
    finally:
        current.body.reset(body)
        attempt.reset(number)
        logs.current.reset(lines)


@contextmanager
def unmarked() -> Iterator[None]:
    """Let the code inside be in no body: a run that a body waits for is its own."""
    body, number = current.body.set(None), attempt.set(None)
    try:
        with logs.kept(None):
            yield
    finally:
        current.body.reset(body)
        attempt.reset(number)


def perform(
    call: CallBody, *, share_connections: bool = False, awaits: bool = False
) -> BodyOutcome:
    """Call a body here and return what came of it.

    ``share_connections``: the thread of a body with a timeout uses this thread's
    database connections (tests, whose transaction is on them). ``awaits``: the caller
    awaits what is to be awaited.
    """
    with marked(call):
        if call.timeout is None:
            outcome = isolated(_outcome, call)
        else:
            outcome = isolated(_within, call, call.timeout, share_connections)
    return outcome if awaits else refused(outcome, f"The body of step {call.name!r}")


def attempted(fn: Callable[[], Any]) -> BodyOutcome:
    """Call ``fn``; its failure is an outcome, what ends the attempt is raised."""
    try:
        return BodyOutcome(fn())
    except BaseException as error:  # noqa: BLE001  # whatever the user's code raises is recorded
        let_pass(error)
        return BodyOutcome(error=error)


def _outcome(call: CallBody) -> BodyOutcome:
    """Call a body and leave this thread's database connections as they were."""
    guard = _guard()
    outcome = _called(call)
    trouble = guard.end(f"The body of step {call.name!r}", reported=False)
    if trouble is not None and outcome.error is None:
        return BodyOutcome(error=trouble)
    return outcome


def _guard() -> Guard:
    """Return the guard of the attempt, or a new one in another thread than its own."""
    state = getattr(current.performer.get(), "state", None)
    if state is not None and state.recorder.on_own_thread:
        guard: Guard = state.guard
        return guard
    return Guard()


def _called(call: CallBody) -> BodyOutcome:
    fn = chosen(call)
    if iscoroutinefunction(fn):
        return _in_a_loop(call)
    if call.own:
        return attempted(lambda: fn(*call.args, **call.kwargs))
    return attempted(lambda: interruptible(call.name, fn, call.args, call.kwargs))


def _in_a_loop(call: CallBody) -> BodyOutcome:
    try:
        return event_loops.run(aperform, call)
    except (SystemExit, KeyboardInterrupt) as error:  # of a task that the body began
        let_pass(error)
        return BodyOutcome(error=error)


async def aperform(call: CallBody) -> BodyOutcome:
    """Await an ``async def`` body and return what came of it; cancel it in time."""
    body = functools.partial(chosen(call), *call.args, **call.kwargs)
    return await afinish(call, body)


async def afinish(
    call: CallBody, body: Callable[[], Any], spent: float = 0.0
) -> BodyOutcome:
    """Await what ``body`` gives, in what is left of the time of a step."""
    limit = None
    if call.timeout is not None:
        limit = max(call.timeout.total_seconds() - spent, 0.0)
    with marked(call):
        task = asyncio.ensure_future(_isolated(body))
        try:
            done, _ = await asyncio.wait({task}, timeout=limit)
        except asyncio.CancelledError:
            task.cancel()
            raise
        if not done:
            task.cancel()
            return timed_out(call)
        try:
            return task.result()
        except asyncio.CancelledError as error:  # by its own code
            return BodyOutcome(error=error)


async def _isolated(body: Callable[[], Any]) -> BodyOutcome:
    """Await a body in a task: what it does to its context ends with that."""
    own_decimals()
    with process_state_kept():
        return await aattempted(body)


async def aattempted(fn: Callable[[], Any]) -> BodyOutcome:
    """Call ``fn`` and await what it gives, if that can be awaited."""
    try:
        result = fn()
        if isinstance(result, Awaitable):
            result = await result
        return BodyOutcome(result)
    except asyncio.CancelledError as error:
        if _cancelling():
            raise
        return BodyOutcome(error=error)
    except BaseException as error:  # noqa: BLE001  # whatever the user's code raises is recorded
        let_pass(error)
        return BodyOutcome(error=error)


def _cancelling() -> bool:
    """Return whether somebody has asked the current task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def timed_out(call: CallBody) -> BodyOutcome:
    """Return the outcome of a body whose time is over."""
    length = format_duration(call.timeout or timedelta())
    msg = f"Step {call.name!r} did not end within {length}."
    return BodyOutcome(error=BodyTimeout(msg))


def _within(call: CallBody, timeout: timedelta, share_connections: bool) -> BodyOutcome:
    """Call a body in a thread of its own, and leave it behind when its time is over.

    Python cannot stop a thread: the one left behind is sent an exception, which ends it
    at its next bytecode. It cannot write for the run in any case.
    """
    results: list[BodyOutcome] = []
    failures: list[BaseException] = []
    context = contextvars.copy_context()
    shared = _lend() if share_connections else {}

    def work() -> None:
        for alias, connection in shared.items():
            connections[alias] = connection
        try:
            results.append(context.run(_outcome, call))
        except _Abandoned:
            pass
        except BaseException as error:  # noqa: BLE001  # raised again by the waiting thread
            failures.append(error)
        finally:
            if not share_connections:
                connections.close_all()

    thread = threading.Thread(target=work, name=f"step {call.name}", daemon=True)
    thread.start()
    # One that awaits is cancelled in there, and is given a moment to end.
    grace = GRACE if iscoroutinefunction(chosen(call)) else 0.0
    try:
        interruptible(call.name, thread.join, [timeout.total_seconds() + grace])
    except BodyTimeout as over:
        _abandon(thread)
        return BodyOutcome(error=over)
    if share_connections:
        for connection in shared.values():
            connection.dec_thread_sharing()
    if failures:
        raise failures[0]
    if results:
        return results[0]
    _abandon(thread)
    return timed_out(call)


def _lend() -> dict[str, Any]:
    shared = {c.alias: c for c in connections.all(initialized_only=True)}
    for connection in shared.values():
        connection.inc_thread_sharing()
    return shared


def _abandon(thread: threading.Thread) -> None:
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_Abandoned)
        )
