"""Call the body of a step: with its timeout, and with no step allowed inside."""

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
from durable_jobs.control_flow import EngineControl, reraise_control
from durable_jobs.definitions import execution
from durable_jobs.durations import format_duration
from durable_jobs.engine import event_loops
from durable_jobs.engine.awaitables import reject_awaitable
from durable_jobs.engine.effects import BodyOutcome, CallBody
from durable_jobs.engine.isolation import (
    copy_decimal_context,
    isolated,
    restore_process_state,
)
from durable_jobs.engine.time_limits import BodyTimeout, interruptible
from durable_jobs.store.connection_state import Guard

#: How many attempts of the current body have failed before.
failure_count: ContextVar[int | None] = ContextVar("durable_failures", default=None)


#: Seconds that an ``async def`` body has to end after it was cancelled.
GRACE = 1.0

Substitute = Callable[[str, Callable[..., Any]], Callable[..., Any]]

_substitute: Substitute | None = None


def substitute(hook: Substitute | None) -> Substitute | None:
    """Make ``hook(step, fn)`` choose what each body calls; return the previous hook."""
    global _substitute
    previous, _substitute = _substitute, hook
    return previous


def body_of(call: CallBody) -> Callable[..., Any]:
    """Return the body to call, or the stub that a test has set for it."""
    return call.fn if call.is_engine_code else stub_or_body(call.name, call.fn)


def stub_or_body(step: str, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return the stub that a test has set for a step, or ``fn``."""
    return fn if _substitute is None else _substitute(step, fn)


class _Abandoned(EngineControl):
    """Raised inside a body after its timeout, to end its thread."""


@contextmanager
def in_body(call: CallBody) -> Iterator[None]:
    """Mark the code inside as the body of a step, and capture its logs."""
    body = execution.current_body.set(call.name)
    failures = failure_count.set(call.failure_count)
    lines = logs.current_lines.set(call.lines)
    try:
        yield
    finally:
        execution.current_body.reset(body)
        failure_count.reset(failures)
        logs.current_lines.reset(lines)


@contextmanager
def outside_body() -> Iterator[None]:
    """Mark the code inside as outside of any body, for a run that a body executes."""
    body, failures = execution.current_body.set(None), failure_count.set(None)
    try:
        with logs.capturing(None):
            yield
    finally:
        execution.current_body.reset(body)
        failure_count.reset(failures)


def run_body(
    call: CallBody, *, share_connections: bool = False, awaits: bool = False
) -> BodyOutcome:
    """Call a body in this thread and return its outcome.

    ``share_connections``: the thread of a body with a timeout uses the database
    connections of this thread. Tests need that: their transaction is open there.
    ``awaits``: the caller awaits an awaitable result.
    """
    with in_body(call):
        if call.timeout is None:
            outcome = isolated(_outcome, call)
        else:
            outcome = isolated(
                _call_with_timeout, call, call.timeout, share_connections
            )
    return (
        outcome
        if awaits
        else reject_awaitable(outcome, f"The body of step {call.name!r}")
    )


def try_call(fn: Callable[[], Any]) -> BodyOutcome:
    """Call ``fn`` and return its outcome. Errors that end the attempt are raised."""
    try:
        return BodyOutcome(fn())
    except BaseException as error:  # noqa: BLE001  # all errors of your project's code are recorded
        reraise_control(error)
        return BodyOutcome(error=error)


def _outcome(call: CallBody) -> BodyOutcome:
    """Call a body, then restore the state of this thread's database connections."""
    guard = _guard()
    outcome = _call(call)
    guard_error = guard.end(f"The body of step {call.name!r}", reported=False)
    if guard_error is not None and outcome.error is None:
        return BodyOutcome(error=guard_error)
    return outcome


def _guard() -> Guard:
    """Return the guard of the attempt, or a new one if this is another thread."""
    state = getattr(execution.current_performer.get(), "state", None)
    if state is not None and state.recorder.on_own_thread:
        guard: Guard = state.guard
        return guard
    return Guard()


def _call(call: CallBody) -> BodyOutcome:
    fn = body_of(call)
    if iscoroutinefunction(fn):
        return _run_in_loop(call)
    if call.is_engine_code:
        return try_call(lambda: fn(*call.args, **call.kwargs))
    return try_call(lambda: interruptible(call.name, fn, call.args, call.kwargs))


def _run_in_loop(call: CallBody) -> BodyOutcome:
    try:
        return event_loops.run(run_body_async, call)
    except (SystemExit, KeyboardInterrupt) as error:  # raised in a task of the body
        reraise_control(error)
        return BodyOutcome(error=error)


async def run_body_async(call: CallBody) -> BodyOutcome:
    """Await an ``async def`` body and return its outcome; cancel it at its timeout."""
    body = functools.partial(body_of(call), *call.args, **call.kwargs)
    return await await_body(call, body)


async def await_body(
    call: CallBody, body: Callable[[], Any], spent: float = 0.0
) -> BodyOutcome:
    """Await the result of ``body`` within the rest of the step's timeout.

    ``spent``: seconds of the timeout that are used already.
    """
    limit = None
    if call.timeout is not None:
        limit = max(call.timeout.total_seconds() - spent, 0.0)
    with in_body(call):
        task = asyncio.ensure_future(_try_in_isolation(body))
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
        except asyncio.CancelledError as error:  # raised by code of the body
            return BodyOutcome(error=error)


async def _try_in_isolation(body: Callable[[], Any]) -> BodyOutcome:
    """Await a body in its own task, so that changes of its context end with it."""
    copy_decimal_context()
    with restore_process_state():
        return await try_call_async(body)


async def try_call_async(fn: Callable[[], Any]) -> BodyOutcome:
    """Call ``fn``, await the result if it is awaitable, and return the outcome."""
    try:
        result = fn()
        if isinstance(result, Awaitable):
            result = await result
        return BodyOutcome(result)
    except asyncio.CancelledError as error:
        if _cancelling():
            raise
        return BodyOutcome(error=error)
    except BaseException as error:  # noqa: BLE001  # all errors of your project's code are recorded
        reraise_control(error)
        return BodyOutcome(error=error)


def _cancelling() -> bool:
    """Return whether the current task is being cancelled from outside."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def timed_out(call: CallBody) -> BodyOutcome:
    """Return the outcome of a body that reached its timeout."""
    length = format_duration(call.timeout or timedelta())
    msg = f"Step {call.name!r} did not end within {length}."
    return BodyOutcome(error=BodyTimeout(msg))


def _call_with_timeout(
    call: CallBody, timeout: timedelta, share_connections: bool
) -> BodyOutcome:
    """Call a body in its own thread, and abandon the thread at the timeout.

    Python cannot stop a thread. The abandoned thread is sent an exception, which ends
    it at its next bytecode. The thread cannot write for the run any more.
    """
    results: list[BodyOutcome] = []
    failures: list[BaseException] = []
    context = contextvars.copy_context()
    shared = _share_connections() if share_connections else {}
    # The body begins when the limit of the task can end the wait for it.
    waiting = threading.Event()

    def work() -> None:
        waiting.wait()
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

    def wait(seconds: float) -> None:
        waiting.set()
        thread.join(seconds)

    # An async body is cancelled in its own thread, and has GRACE seconds to end.
    grace = GRACE if iscoroutinefunction(body_of(call)) else 0.0
    try:
        interruptible(call.name, wait, [timeout.total_seconds() + grace])
    except BodyTimeout as over:
        _abandon(thread)
        waiting.set()
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


def _share_connections() -> dict[str, Any]:
    shared = {c.alias: c for c in connections.all(initialized_only=True)}
    for connection in shared.values():
        connection.inc_thread_sharing()
    return shared


def _abandon(thread: threading.Thread) -> None:
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_Abandoned)
        )
