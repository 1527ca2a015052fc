"""Keys and conditions: CEL text or a Python callable, over an event.

CEL is evaluated by ``cel-expr-python``, the extra ``durable-jobs[cel]``, which is
imported when the first text is compiled. There are four differences from plain CEL:

* A missing attribute is null, and an invalid operation on null is null. Without
  ``total``, ``event.data.total == null`` is true and ``event.data.total > 0`` is null.
  A condition treats null as false. ``||`` and ``&&`` treat null as SQL does.
* ``map`` and ``filter`` are rejected, since their cost grows with the square of the
  list. ``all`` and ``exists`` visit at most 10,000 items in one evaluation.
* Numbers of any size are compared as in Python, and true is not 1. A calculation with
  an integer beyond 64 bits fails. See ``values.ExactNumbers``.
* A text has at most 1,024 bytes and 32 levels.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from durable_jobs.control_flow import reraise_control
from durable_jobs.error_text import summary_of
from durable_jobs.exceptions import ConfigurationError, ExpressionError
from durable_jobs.expressions.program import Program
from durable_jobs.expressions.rewriting import Path
from durable_jobs.records import UnsupportedValue, native

__all__ = ["Expression", "Path", "compile_expression"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Expression(ABC):
    """A compiled key or condition. Created by ``compile_expression``."""

    #: The CEL text, or the location of the callable.
    source: str
    #: The owner of the expression, for messages.
    where: str
    variables: tuple[str, ...]

    @property
    @abstractmethod
    def wants_mapping(self) -> bool:
        """Whether the variables must be dicts (CEL) or can be any objects."""

    def reads(self) -> list[Path]:
        """Return the paths of the attributes that a CEL text reads.

        Paths inside ``has()`` are not included. Empty for a callable.
        """
        return []

    @abstractmethod
    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Return the result for variables by name, as a JSON value.

        Dates, UUIDs and similar values become strings, and Decimals become numbers. A
        missing variable is null. Raise ``ExpressionError`` if the evaluation fails.
        """

    @abstractmethod
    def test(self, values: Mapping[str, Any]) -> bool:
        """Return whether the condition is true for variables by name.

        Null is false. Raise ``ExpressionError`` if the evaluation fails, or if a CEL
        result is not a bool.
        """


def compile_expression(
    source: str | Callable[..., Any],
    *,
    variables: tuple[str, ...] = ("event",),
    where: str,
    condition: bool = False,
) -> Expression:
    """Compile a CEL text or a callable into an ``Expression``.

    A callable takes all variables in order, or only the first. Raise
    ``ConfigurationError`` if the source is invalid. ``where`` begins the message, which
    quotes the place in the text. With ``condition``, a CEL text must be able to return
    a bool.
    """
    if isinstance(source, str):
        program = Program.compile(source, variables, where)
        if condition and not program.may_be_bool:
            raise ConfigurationError(
                f"{where}: the expression {source!r} returns {program.result_type}; "
                "expected a condition, which returns true or false."
            )
        return _Text(source=source, where=where, variables=variables, program=program)
    if not callable(source):
        raise ConfigurationError(
            f"{where}: {source!r} is not an expression; expected a CEL text such as "
            f"'{variables[0]}.data.id' or a callable such as "
            f"lambda {variables[0]}: {variables[0]}.data['id']."
        )
    return _Call(
        source=_place(source),
        where=where,
        variables=variables,
        function=source,
        count=_count(source, variables, where),
    )


@dataclass(frozen=True, kw_only=True)
class _Text(Expression):
    program: Program = field(repr=False, compare=False)

    def reads(self) -> list[Path]:
        found = self.program.rewritten
        paths = dict.fromkeys([*found.values.values(), *found.strings.values()])
        return [path for path in paths if path not in found.presences.values()]

    @property
    def wants_mapping(self) -> bool:
        return True

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        try:
            return self.program.run(values)
        except UnsupportedValue as error:
            raise self._failed(str(error)) from None

    def test(self, values: Mapping[str, Any]) -> bool:
        try:
            result = self.program.run(values)
        except UnsupportedValue as error:
            raise self._failed(str(error)) from None
        if result is not None and not isinstance(result, bool):
            kind = type(result).__name__
            raise self._failed(
                f"it returned a value of type {kind}; expected a condition"
            )
        return bool(result)

    def _failed(self, reason: str) -> ExpressionError:
        return ExpressionError(
            f"{self.where}: the expression {self.source!r} failed: {reason}."
        )


@dataclass(frozen=True, kw_only=True)
class _Call(Expression):
    function: Callable[..., Any]
    #: How many variables the function takes.
    count: int

    @property
    def wants_mapping(self) -> bool:
        return False

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        return self._read(native, values)

    def test(self, values: Mapping[str, Any]) -> bool:
        return self._read(bool, values)

    def _read(self, read: Callable[[Any], T], values: Mapping[str, Any]) -> T:
        """Call the function and convert its result, whose class may raise too."""
        given = (values.get(name) for name in self.variables[: self.count])
        try:
            return read(self.function(*given))
        except UnsupportedValue as error:
            raise ExpressionError(f"{self.where}: {self.source}: {error}.") from None
        except BaseException as error:
            reraise_control(error)
            raise ExpressionError(
                f"{self.where}: {self.source} failed: {summary_of(error)}"
            ) from error


def _count(function: Callable[..., Any], variables: tuple[str, ...], where: str) -> int:
    if inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"{where}: {_place(function)} is async; expected a plain callable."
        )
    try:
        signature = inspect.signature(function)
    except ValueError:
        return 1  # a builtin without a signature gets the event
    for count in (len(variables), 1):
        try:
            signature.bind(*variables[:count])
        except TypeError:
            continue
        return count
    raise ConfigurationError(
        f"{where}: {_place(function)}{signature} cannot be called as an expression; "
        f"expected a callable of ({', '.join(variables)})."
    )


def _place(function: Callable[..., Any]) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    module = getattr(function, "__module__", None) or type(function).__module__
    code = getattr(function, "__code__", None)
    line = f" (line {code.co_firstlineno})" if code else ""
    return f"{module}.{name}{line}"
