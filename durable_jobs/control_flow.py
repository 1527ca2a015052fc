"""Which exceptions are failures of your project's code, and which end an attempt.

Every exception that a callable of your project raises is a failure, including
``SystemExit`` and ``CancelledError``. There are two exceptions to this rule, which are
raised again: those that the engine raises to leave a function, and those that a signal
handler raises in a process that received the signal.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class EngineControl(BaseException):
    """Raised by the engine to leave your code. Only subclasses are raised.

    A ``BaseException``, so that ``except Exception`` does not catch it.
    """


#: Signals that a program sends to itself, mostly to limit the time of its own code.
_TIMERS = frozenset(
    getattr(signal, name)
    for name in ("SIGALRM", "SIGVTALRM", "SIGPROF")
    if hasattr(signal, name)
)
#: The most exceptions of nested groups that are checked.
_MOST_LEAVES = 10_000


def is_failure(error: BaseException) -> bool:
    """Return whether an exception is a failure of the code that raised it.

    Only the type and the frames of the exception are used, since its attributes may be
    any code.
    """
    kind = type(error)
    if issubclass(kind, Exception):
        return True
    if issubclass(kind, BaseExceptionGroup):
        return not any(_passes(leaf) for leaf in leaves(error))
    return not _passes(error)


def reraise_control(error: BaseException) -> None:
    """Raise the exception again if it is engine control or comes from a signal."""
    if not is_failure(error):
        raise error


def _passes(error: BaseException) -> bool:
    kind = type(error)
    if issubclass(kind, Exception):
        return False
    return issubclass(kind, EngineControl) or comes_from_a_signal(error)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, including nested groups."""
    stack = [error]
    for _ in range(_MOST_LEAVES):
        if not stack:
            return
        found = stack.pop()
        if issubclass(type(found), BaseExceptionGroup):
            stack.extend(BaseExceptionGroup.exceptions.__get__(found))
        else:
            yield found


def traceback_of(error: BaseException) -> TracebackType | None:
    """Return the traceback of an exception, even if its class overrides the name."""
    found: TracebackType | None = _TRACEBACK.__get__(error)
    return found


_TRACEBACK: Any = BaseException.__dict__["__traceback__"]


def comes_from_a_signal(error: BaseException) -> bool:
    """Return whether a signal handler has raised the exception.

    A handler is called with the number of the signal and the interrupted frame, which
    is the frame before it in the traceback.
    """
    trace, interrupted = traceback_of(error), None
    while trace is not None:
        frame = trace.tb_frame
        if interrupted is not None and _handles(frame, interrupted):
            return True
        trace, interrupted = trace.tb_next, frame
    return False


def _handles(frame: FrameType, interrupted: FrameType) -> bool:
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 0x04)
    if not count:
        return False
    values: list[Any] = []
    local = frame.f_locals
    for name in code.co_varnames[:count]:
        value = local.get(name)
        values += value if type(value) is tuple else [value]
    if not any(value is interrupted for value in values):
        return False
    numbers = {int(value) for value in values if type(value) in (int, signal.Signals)}
    return bool(numbers & _SIGNALS) and not numbers & _TIMERS


_SIGNALS = frozenset(int(number) for number in signal.valid_signals())


@contextmanager
def interrupts_known() -> Iterator[None]:
    """Make Ctrl-C in the block distinguishable from a raised ``KeyboardInterrupt``.

    Python's own handler leaves no frame in the traceback.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is _interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    signal.default_int_handler(signum, frame)
