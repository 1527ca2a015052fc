"""Keys and conditions: CEL text or a Python callable, over an event.

CEL is evaluated by ``cel-expr-python``, the extra ``durable-jobs[cel]``, which is
looked for when the first text is compiled. Four things differ from plain CEL:

* A missing attribute is null, and what null cannot take part in is null: with no
  ``total``, ``event.data.total == null`` is true and ``event.data.total > 0`` is null,
  which no condition takes for true. ``||`` and ``&&`` treat null as SQL does.
* ``map`` and ``filter`` are refused, as their cost grows with the square of the list;
  ``all`` and ``exists`` go through at most 10,000 items in one evaluation.
* Numbers are compared as Python compares them, whatever their size, and true is not 1.
  What would calculate with an integer beyond 64 bits fails; see ``values.Exact``.
* A text has at most 1,024 bytes and is at most 32 levels deep.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from durable_jobs.control_flow import let_pass
from durable_jobs.error_text import summary_of
from durable_jobs.exceptions import ConfigurationError, ExpressionError
from durable_jobs.expressions.program import Program
from durable_jobs.expressions.rewriting import Path
from durable_jobs.records import Unfit, native

__all__ = ["Expression", "Path", "compile_expression"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Expression(ABC):
    """A key or a condition that has been compiled; made by ``compile_expression``."""

    #: The CEL text, or where the callable is.
    source: str
    #: Whose expression it is, for messages.
    where: str
    variables: tuple[str, ...]

    @property
    @abstractmethod
    def wants_mapping(self) -> bool:
        """Tell whether the variables are dicts (CEL) or objects of any kind."""

    def reads(self) -> list[Path]:
        """Return the paths of the attributes that are read, as far as that is known.

        Those whose presence the text asks for with ``has()`` are not among them.
        """
        return []

    @abstractmethod
    def evaluate(self, values: Mapping[str, Any]) -> Any:
        """Give the result for these variables by name, as a value that JSON has.

        That is None, a bool, an int, a float, a str, or a list or dict of them; dates,
        UUIDs and their like become texts, Decimals numbers. A variable that is not
        given is null. A failure is an ``ExpressionError``.
        """

    @abstractmethod
    def test(self, values: Mapping[str, Any]) -> bool:
        """Tell whether the condition holds for these variables by name.

        Null is no. A failure, and a CEL result that is no bool, is an
        ``ExpressionError``.
        """


def compile_expression(
    source: str | Callable[..., Any],
    *,
    variables: tuple[str, ...] = ("event",),
    where: str,
    condition: bool = False,
) -> Expression:
    """Compile a CEL text or a callable into an ``Expression``.

    A callable takes the variables in their order, or only the first of them. ``where``
    begins the message of the ``ConfigurationError`` that anything wrong gets, which
    quotes the place in the text. With ``condition``, a CEL text that can give nothing
    but a number, a text or the like is wrong too.
    """
    if isinstance(source, str):
        program = Program.compile(source, variables, where)
        if condition and not program.may_be_bool:
            raise ConfigurationError(
                f"{where}: the expression {source!r} gives {program.result_type}; "
                "expected a condition, which gives true or false."
            )
        return _Text(source=source, where=where, variables=variables, program=program)
    if not callable(source):
        raise ConfigurationError(
            f"{where}: {source!r} is no expression; expected a CEL text such as "
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
        except Unfit as error:
            raise self._failed(str(error)) from None

    def test(self, values: Mapping[str, Any]) -> bool:
        try:
            result = self.program.run(values)
        except Unfit as error:
            raise self._failed(str(error)) from None
        if result is not None and not isinstance(result, bool):
            kind = type(result).__name__
            raise self._failed(f"it gave a value of type {kind}; expected a condition")
        return bool(result)

    def _failed(self, reason: str) -> ExpressionError:
        return ExpressionError(
            f"{self.where}: the expression {self.source!r} failed: {reason}."
        )


@dataclass(frozen=True, kw_only=True)
class _Call(Expression):
    function: Callable[..., Any]
    #: How many of the variables the function takes.
    count: int

    @property
    def wants_mapping(self) -> bool:
        return False

    def evaluate(self, values: Mapping[str, Any]) -> Any:
        return self._read(native, values)

    def test(self, values: Mapping[str, Any]) -> bool:
        return self._read(bool, values)

    def _read(self, read: Callable[[Any], T], values: Mapping[str, Any]) -> T:
        """Call the function and read its result, whose class may raise too."""
        given = (values.get(name) for name in self.variables[: self.count])
        try:
            return read(self.function(*given))
        except Unfit as error:
            raise ExpressionError(f"{self.where}: {self.source}: {error}.") from None
        except BaseException as error:
            let_pass(error)
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
        return 1  # a builtin that does not tell: it gets the event
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
