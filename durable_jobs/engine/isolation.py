"""Run user code so that its changes of thread and process state end with it.

Language, time zone, decimal context and context variables live in a context. Each
attempt has its own context, and each body a copy. The locale and the warnings filters
belong to the process; they are restored if they have changed.

Other state stays changed: ``os.environ``, the working directory, the seed of
``random``, thread-local variables of other libraries.
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
    """Call ``fn`` in a new context and return its result."""
    with restore_process_state():
        return contextvars.copy_context().run(_call, fn, *args, **kwargs)


def isolate(fn: Callable[P, T]) -> Callable[P, T]:
    """Make each call of ``fn`` isolated."""

    @functools.wraps(fn)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        return isolated(fn, *args, **kwargs)

    return called


def _call(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    copy_decimal_context()
    return fn(*args, **kwargs)


def copy_decimal_context() -> None:
    """Copy the decimal context, which code changes in place."""
    decimal.setcontext(decimal.getcontext().copy())


class restore_process_state:  # used as ``with restore_process_state():``
    """Restore the locale and the warnings filters after the block.

    All threads share both. If other threads execute user code at the same time, the
    state at the beginning may be one of their changes. Then the state before all of
    them is restored.
    """

    __slots__ = ("_alone", "_begins", "_filters", "_kept", "_locale")

    #: The threads that execute user code, and how many have begun.
    _threads: ClassVar[dict[int, restore_process_state]] = {}
    _begun: ClassVar[int] = 0
    _first: ClassVar[restore_process_state]
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __enter__(self) -> None:
        kind, thread = restore_process_state, threading.get_ident()
        self._locale = locale.setlocale(locale.LC_ALL)
        self._filters: list[Any] = warnings.filters  # type: ignore[assignment]  # a list at run time
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
        kind = restore_process_state
        state = self if self._alone == kind._begun else kind._first
        if self._begins:
            with kind._lock:
                kind._threads.pop(threading.get_ident(), None)
        if locale.setlocale(locale.LC_ALL) != state._locale:
            locale.setlocale(locale.LC_ALL, state._locale)
        if state._filters != state._kept:
            _put_back(state._filters, state._kept)
        # A catch_warnings block of another thread sets its own list.
        if warnings.filters is not state._filters and _in_main_thread():
            warnings.filters = state._filters
            _put_back(state._filters, state._kept)


def _put_back(filters: list[Any], kept: list[Any]) -> None:
    current = list(warnings.filters)
    # The only way to invalidate the interpreter's cache; it empties the list.
    warnings.resetwarnings()
    warnings.filters[:] = current  # type: ignore[index]  # a list at run time
    filters[:] = kept


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
