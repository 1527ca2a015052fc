"""Compilation and evaluation of CEL by Google's C++ runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from durable_jobs.exceptions import ConfigurationError
from durable_jobs.expressions.rewriting import Rewritten, UnsupportedExpression, rewrite
from durable_jobs.expressions.values import ExactNumbers, is_present, look_up
from durable_jobs.records import UnsupportedValue, native

LONGEST = 1024

#: Errors for a missing attribute, or for an invalid operation on null.
_NULL = re.compile(
    r"Key not found|Index error|Applying SELECT|null_type|found : _(?:\?\._|\[\?_\])"
)
#: Errors that mean the same if a value is null. They do not name the types.
_MAYBE_NULL = re.compile(r"found : (?:_\|\|_|_&&_|!_|@in|<\w+>)")
_LOCATED = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ")


@dataclass(frozen=True)
class Program:
    """A compiled CEL text."""

    compiled: Any
    rewritten: Rewritten
    result_type: str

    @classmethod
    def compile(cls, source: str, variables: tuple[str, ...], where: str) -> Program:
        """Compile a text.

        Raise ``ConfigurationError``, quoting the place, if invalid.
        """
        if not source.strip() or len(source.encode(errors="replace")) > LONGEST:
            raise ConfigurationError(
                f"{where}: the expression has {len(source)} characters; expected 1 to "
                f"{LONGEST} bytes of CEL."
            )
        try:
            # First the original text, so that errors have the right columns.
            checked = _environment(variables).compile(source)
            rewritten = rewrite(source, variables)
            names = (*rewritten.values, *rewritten.presences, *rewritten.strings)
            compiled = _environment(names, optional=True).compile(rewritten.text)
        except ImportError as error:
            raise ConfigurationError(
                f"{where}: the expression {source!r} is CEL, which is not installed "
                f'({error}): pip install "durable-jobs[cel]", or pass a callable.'
            ) from None
        except UnsupportedExpression as error:
            raise ConfigurationError(
                f"{where}: the expression {source!r} cannot be used: {error}."
            ) from None
        except (RuntimeError, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"{where}: the expression {source!r} cannot be compiled: "
                f"{_reason(str(error))}\n(Its variables are {', '.join(variables)}.)"
            ) from None
        return cls(compiled, rewritten, checked.return_type().name())

    @property
    def may_be_bool(self) -> bool:
        """Whether the result can be a bool, by its static type."""
        return self.result_type in ("BOOL", "DYN", "NULL")

    def run(self, values: Mapping[str, Any]) -> Any:
        """Return the result in JSON types. Raise ``UnsupportedValue`` if that fails."""
        rewritten = self.rewritten
        found = {
            name: native(look_up(values, path))
            for name, path in rewritten.values.items()
        }
        if rewritten.text in found:  # the text is a single attribute
            return found[rewritten.text]
        exact = ExactNumbers(found, rewritten)
        data = {**exact.values}
        for name, path in rewritten.strings.items():
            data[name] = _as_digits(native(look_up(values, path)))
        for name, path in rewritten.presences.items():
            data[name] = is_present(values, path)
        try:
            result = self.compiled.eval(data=data)
            kind = result.type().name()
            value = result.plain_value()
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise UnsupportedValue(_reason(str(error))) from None
        if kind != "ERROR":
            return exact.result(value)
        if self._is_null(value, data):
            return None
        raise UnsupportedValue(_reason(value))

    def _is_null(self, error: str, data: Mapping[str, Any]) -> bool:
        if _NULL.search(error):
            return True
        doubtful = self.rewritten.loops or None in data.values()
        return doubtful and _MAYBE_NULL.search(error) is not None


def _as_digits(value: Any) -> Any:
    """Return a whole number as the digits that ``string()`` returns."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # equal numbers must have equal text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


@lru_cache(maxsize=256)
def _environment(variables: tuple[str, ...], *, optional: bool = False) -> Any:
    cel: Any = import_module("cel_expr_python.cel")
    extensions = []
    if optional:
        # Only rewritten texts use optional values, never the original text.
        found: Any = import_module("cel_expr_python.ext.ext_optional")
        extensions.append(found.ExtOptional())
    return cel.NewEnv(
        variables=dict.fromkeys(variables, cel.Type.DYN), extensions=extensions
    )


def _reason(error: str) -> str:
    """Return the runtime's message without its codes."""
    error = re.sub(r"^[A-Z_]+: ", "", error)
    error = re.sub(r"\.?(?: \[[A-Z_]+\])?$", "", error)
    error = re.sub(r" expecting \{.*?\}(?=\n|$)", "", error)
    return _LOCATED.sub(r"line \1, column \2: ", error)
