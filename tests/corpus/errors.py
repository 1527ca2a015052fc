"""Hostile errors: every attribute and method of an error may be wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NoReturn

from hypothesis import strategies as st

from tests.corpus.values import TEXTS, VALUES, Rude


def _raise(*args: object, **kwargs: object) -> NoReturn:
    raise RuntimeError("asked something")


def _recurse(self: Any, *args: object) -> str:
    return str(self)


#: The behaviour of an error's methods when they are called.
METHODS = st.sampled_from(
    [_raise, _recurse, lambda *args: None, lambda *args: 7, lambda *args: "\ud800\0",
     lambda *args: "long " * 100_000]
)  # fmt: skip
NAMES = st.sampled_from(
    ["__str__", "__repr__", "__bool__", "__len__", "__eq__", "__hash__", "__iter__",
     "__getattr__", "__reduce__", "__traceback__", "__cause__", "__context__", "args",
     "__notes__", "__suppress_context__", "__class__", "__dict__", "__format__"]
)  # fmt: skip
BASES = st.sampled_from(
    [Exception, ValueError, KeyError, OSError, UnicodeDecodeError, StopIteration,
     RecursionError, AssertionError, SystemExit, KeyboardInterrupt, GeneratorExit,
     BaseException, SyntaxError]
)  # fmt: skip


@st.composite
def errors(draw: Callable[[Any], Any], bases: Any = BASES) -> BaseException:
    """Draw an error, often of a class with broken methods."""
    base = draw(bases)
    methods: dict[str, Any] = {"__init__": lambda self, *args: None}
    for name in draw(st.lists(NAMES, max_size=3, unique=True)):
        method = draw(METHODS)
        special = name.startswith("__") and name not in (
            "__traceback__", "__cause__", "__context__", "__notes__", "__class__",
            "__suppress_context__", "__dict__",
        )  # fmt: skip
        methods[name] = method if special else property(method)
    called = draw(st.sampled_from(["Wrong", "", "x" * 5_000, "a.b", "<é>\u2028"]))
    cls = type(called or "Wrong", (base,), methods)
    error: BaseException = cls(*draw(st.lists(VALUES | TEXTS, max_size=3)))
    if draw(st.booleans()):
        with contextlib.suppress(Exception):  # it may not let itself be changed
            error.__context__ = error.__cause__ = draw(_others(error))
    return error


def _others(error: BaseException) -> st.SearchStrategy[Any]:
    """Draw the cause of an error: itself, a chain, a group, or nothing."""
    return st.sampled_from(
        [error, None, _chain(300), ExceptionGroup("many", [ValueError(Rude())] * 50)]
    )


def _chain(length: int) -> BaseException:
    first = last = ValueError("the first")
    for number in range(length):
        following = ValueError(f"number {number}")
        last.__cause__ = following
        last = following
    return first
