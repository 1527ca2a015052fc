"""Run user code so that what it does to its thread's state ends with it.

Language, time zone, decimal context and all context variables live in a context: each
attempt has one of its own, and each body in it. The locale and the warnings filters
are the process's: they are set back where they were changed.

State that only its owner knows stays: ``os.environ``, the working directory, the seed
of ``random``, thread-local variables of other libraries.
"""

from __future__ import annotations

import contextvars
import decimal
import functools
import locale
import threading
import warnings
from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def isolated(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``fn`` in a context of its own, and return what it returns."""
    with process_state_kept():
        return contextvars.copy_context().run(_called, fn, *args, **kwargs)


def apart(fn: Callable[P, T]) -> Callable[P, T]:
    """Let each call of ``fn`` be isolated."""

    @functools.wraps(fn)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        return isolated(fn, *args, **kwargs)

    return called


def _called(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    own_decimals()
    return fn(*args, **kwargs)


def own_decimals() -> None:
    """Give the context a decimal context of its own: code changes it in place."""
    decimal.setcontext(decimal.getcontext().copy())


class process_state_kept:  # used as ``with process_state_kept():``
    """Set the locale and the warnings filters back after the block.

    All threads share both. Where other threads execute at the same time, what was there
    at the beginning may be what one of them has changed: then it is set back to what
    was there before all of them.
    """

    __slots__ = ("_alone", "_begins", "_filters", "_kept", "_locale")

    #: The threads that execute user code, and how many have begun.
    _threads: ClassVar[dict[int, process_state_kept]] = {}
    _begun: ClassVar[int] = 0
    _first: ClassVar[process_state_kept]
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __enter__(self) -> None:
        kind, thread = process_state_kept, threading.get_ident()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._filters: list[Any] = warnings.filters  # type: ignore[assignment]  # a list, not any sequence
        self._kept = self._filters.copy()
        self._begins = thread not in kind._threads
        if self._begins:
            with kind._lock:
                kind._begun += 1
                if not kind._threads:
                    kind._first = self
                kind._threads[thread] = self
        self._alone = kind._begun if len(kind._threads) == 1 else -1

    def __exit__(self, *error: object) -> None:
        kind = process_state_kept
        state = self if self._alone == kind._begun else kind._first
        if self._begins:
            with kind._lock:
                kind._threads.pop(threading.get_ident(), None)
        if locale.setlocale(locale.LC_ALL) != state._locale:
            locale.setlocale(locale.LC_ALL, state._locale)
        if state._filters != state._kept:
            _put_back(state._filters, state._kept)
        # A catch_warnings block of another thread has a list of its own.
        if warnings.filters is not state._filters and _in_main_thread():
            warnings.filters = state._filters
            _put_back(state._filters, state._kept)


def _put_back(filters: list[Any], kept: list[Any]) -> None:
    current = list(warnings.filters)
    # Only this tells the interpreter that filters have changed; it empties the list.
    warnings.resetwarnings()
    warnings.filters[:] = current  # type: ignore[index]  # a list, not any sequence
    filters[:] = kept


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
