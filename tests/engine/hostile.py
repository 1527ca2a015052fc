"""Exceptions that resist description, for the tests of this package."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any


class Hostile(Exception):
    """The base of the classes below."""


class NoText(Hostile):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class ExitsForText(Hostile):
    def __str__(self) -> str:
        sys.exit(3)

    __repr__ = __str__


class CancelsForText(Hostile):
    def __str__(self) -> str:
        raise asyncio.CancelledError

    __repr__ = __str__


class TextOfNoString(Hostile):
    def __str__(self) -> Any:
        return 5


class RecursiveText(Hostile):
    def __str__(self) -> str:
        return str(self)


class RaisesItselfForText(Hostile):
    def __str__(self) -> str:
        raise self


class OddString(str):
    def __getitem__(self, key: Any) -> Any:
        raise ValueError("no part of it")

    def replace(self, *args: Any) -> Any:
        raise ValueError("no copy of it")

    encode = __len__ = __eq__ = replace  # type: ignore[assignment]  # the case under test
    __hash__ = str.__hash__


class OddText(Hostile):
    def __str__(self) -> str:
        return OddString("odd")


def _refuse(*args: Any) -> Any:
    raise ValueError("not this one")


class NoArgs(Hostile):
    args = property(_refuse)


class NoBool(Hostile):
    __bool__ = _refuse
    __len__ = _refuse


class NoClass(Hostile):
    __class__ = property(_refuse)


class NoTraceback(Hostile):
    __traceback__ = property(_refuse)


class NoCause(Hostile):
    __cause__ = property(_refuse)
    __context__ = property(_refuse)
    __suppress_context__ = property(_refuse)


class NoNotes(Hostile):
    __notes__ = property(_refuse)


class NoAttributes(Hostile):
    def __getattribute__(self, name: str) -> Any:
        raise ValueError(name)


class NoComparison(Hostile):
    __eq__ = _refuse
    __hash__ = _refuse


class NoPickle(Hostile):
    def __reduce_ex__(self, protocol: Any) -> Any:
        sys.exit(4)


class OddMeta(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]  # the case under test
        raise ValueError("no name")

    def __instancecheck__(cls, instance: Any) -> bool:
        raise ValueError("no instances")

    def __subclasscheck__(cls, subclass: Any) -> bool:
        raise ValueError("no subclasses")


class OddClass(Hostile, metaclass=OddMeta):
    pass


class OddStep(Exception):
    """Claims to be a step's failure, but is not one."""

    error_type = step = property(_refuse)


LongName: Any = type("N" * 10_000, (Exception,), {"__module__": 7})


def cycle() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__ = first
    return first


def long_chain() -> Exception:
    error = ValueError("the last one")
    for number in range(5_000):
        before = ValueError(f"number {number}")
        before.__cause__ = error
        error = before
    return error


def deep_group() -> Exception:
    error: Exception = ValueError("inside")
    for _ in range(500):
        error = ExceptionGroup("around", [error])
    return error


def noted(*notes: Any) -> Exception:
    error = ValueError("noted")
    error.__notes__ = list(notes)
    return error


def deep() -> Exception:
    def go(depth: int) -> None:
        go(depth + 1)

    try:
        go(0)
    except RecursionError as error:
        return error
    raise AssertionError


def syntax() -> Exception:
    error = SyntaxError("odd")
    error.filename, error.lineno, error.text = 5, "x", OddString("t")  # type: ignore[assignment]  # the case under test
    return error


CORPUS: dict[str, Callable[[], BaseException]] = {
    **{
        type.__dict__["__name__"].__get__(kind)[:30]: kind
        for kind in (
            NoText,
            ExitsForText,
            CancelsForText,
            TextOfNoString,
            RecursiveText,
            RaisesItselfForText,
            OddText,
            NoArgs,
            NoBool,
            NoClass,
            NoTraceback,
            NoCause,
            NoNotes,
            NoAttributes,
            NoComparison,
            NoPickle,
            OddClass,
            LongName,
        )
    },
    "odd step": OddStep,
    "cycle": cycle,
    "long chain": long_chain,
    "deep group": deep_group,
    "wide group": lambda: ExceptionGroup("wide", [NoText() for _ in range(5_000)]),
    "exit in a group": lambda: BaseExceptionGroup("mixed", [SystemExit(2), NoText()]),
    "odd notes": lambda: noted(5, OddString("note"), None, *["note"] * 1_000),
    "deep recursion": deep,
    "odd syntax": syntax,
    "long text": lambda: ValueError("long " * 1_000_000),
    "large number": lambda: ValueError(10**6_000),
    "lone surrogate": lambda: ValueError("\ud800 and \x00"),
    "odd exit": lambda: SystemExit(NoText()),
    "many arguments": lambda: ValueError(*range(10_000)),
    "stop": StopIteration,
    "generator exit": GeneratorExit,
    "interrupt": KeyboardInterrupt,
    "exit": lambda: SystemExit(2),
    "cancelled": asyncio.CancelledError,
}
