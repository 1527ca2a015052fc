"""The time limit of the task that executes runs: hand them on, or end a body.

A worker's limit counts from the task, which serves one run after the other. So a run is
handed on when half of the limit has passed, and each body has at least the other half.
The signal of the limit ends a body alone. Anywhere else it is noted, and the run is
handed on at its next step.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from durable_jobs import clock

#: When runs are to be handed on, by the monotonic clock.
_hand_on_at: ContextVar[float] = ContextVar("durable_hand_on_at", default=math.inf)

#: Whether the main thread is in a body, which the limit may end.
_inside = False
#: Whether the limit has passed.
_struck = False


class BodyTimeout(Exception):
    """The body did not end within its timeout, or within the limit of its task."""


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Execute runs inside the block for a task that may take so many seconds."""
    global _struck
    at = math.inf if seconds is None else clock.monotonic() + seconds / 2
    token = _hand_on_at.set(at)
    try:
        yield
    finally:
        _hand_on_at.reset(token)
        _struck = False


def near() -> bool:
    """Tell whether runs are to be handed on to another task."""
    return _struck or clock.monotonic() > _hand_on_at.get()


def strike(error: type[BaseException]) -> None:
    """End the body that the main thread is in by ``error``; else note the limit.

    Called by the handler of a signal: between any two instructions.
    """
    global _inside, _struck
    _struck = True
    if _inside:
        _inside = False
        raise error


def interruptible(
    step: str, fn: Callable[..., Any], args: Any = (), kwargs: Mapping[str, Any] = {}
) -> Any:
    """Call what a limit may end. It raises ``BodyTimeout`` then."""
    global _inside
    if _struck or threading.get_ident() != threading.main_thread().ident:
        return fn(*args, **kwargs)
    try:
        _inside = True
        try:
            return fn(*args, **kwargs)
        finally:
            _inside = False
    except Exception as error:
        if not _struck:
            raise
        msg = f"Step {step!r} was ended by the soft time limit of its worker's task."
        raise BodyTimeout(msg) from error
