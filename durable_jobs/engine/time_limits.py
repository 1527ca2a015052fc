"""The time limit of the Celery task that executes runs.

The limit counts from the start of the task, which executes one run after the other. So
the worker requeues a run when half of the limit has passed, and each body has at least
the other half. The signal of the limit ends a body. Outside of bodies it only sets a
flag, and the run is requeued at its next step.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from durable_jobs import clock

#: When runs have to be requeued, by the monotonic clock.
_requeue_at: ContextVar[float] = ContextVar("durable_requeue_at", default=math.inf)

#: Whether the main thread executes a body, which the limit may end.
_in_body = False
#: Whether the limit has passed.
_limit_passed = False


class BodyTimeout(Exception):
    """The body did not end within its timeout, or within the limit of its task."""


@contextmanager
def task_limit(seconds: float | None) -> Iterator[None]:
    """Apply the limit of a task to the runs that the block executes."""
    global _limit_passed
    at = math.inf if seconds is None else clock.monotonic() + seconds / 2
    token = _requeue_at.set(at)
    try:
        yield
    finally:
        _requeue_at.reset(token)
        _limit_passed = False


def nearly_over() -> bool:
    """Return whether runs have to be requeued for another task."""
    return _limit_passed or clock.monotonic() > _requeue_at.get()


def limit_reached(error: type[BaseException]) -> None:
    """End the current body of the main thread by ``error``, or set the flag.

    The signal handler calls this, between any two instructions.
    """
    global _in_body, _limit_passed
    _limit_passed = True
    if _in_body:
        _in_body = False
        raise error


def interruptible(
    step: str, fn: Callable[..., Any], args: Any = (), kwargs: Mapping[str, Any] = {}
) -> Any:
    """Call code that the limit may end; raise ``BodyTimeout`` then."""
    global _in_body
    if _limit_passed or threading.get_ident() != threading.main_thread().ident:
        return fn(*args, **kwargs)
    try:
        _in_body = True
        try:
            return fn(*args, **kwargs)
        finally:
            _in_body = False
    except Exception as error:
        if not _limit_passed:
            raise
        msg = f"Step {step!r} was ended by the soft time limit of its worker's task."
        raise BodyTimeout(msg) from error
