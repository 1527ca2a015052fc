"""CEL, by Google's C++ runtime."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from durable_jobs.exceptions import ConfigurationError
from durable_jobs.expressions.rewriting import RefusedExpression, Rewritten, rewrite
from durable_jobs.expressions.values import Exact, is_there, look_up
from durable_jobs.records import Unfit, native

LONGEST = 1024

#: Errors that say that an attribute is missing, or that null stood where it cannot.
_NULL = re.compile(
    r"Key not found|Index error|Applying SELECT|null_type|found : _(?:\?\._|\[\?_\])"
)
#: Errors that say so when there is a null: they do not name the types that they met.
_MAYBE_NULL = re.compile(r"found : (?:_\|\|_|_&&_|!_|@in|<\w+>)")
_LOCATED = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ")


@dataclass(frozen=True)
class Program:
    """A CEL text that has been compiled."""

    compiled: Any
    rewritten: Rewritten
    result_type: str

    @classmethod
    def compile(cls, source: str, variables: tuple[str, ...], where: str) -> Program:
        """Compile a text, or raise the ``ConfigurationError`` that quotes the place."""
        if not source.strip() or len(source.encode(errors="replace")) > LONGEST:
            raise ConfigurationError(
                f"{where}: the expression has {len(source)} characters; expected 1 to "
                f"{LONGEST} bytes of CEL."
            )
        try:
            # First as it was written, so that errors tell the user's own columns.
            checked = _environment(variables).compile(source)
            rewritten = rewrite(source, variables)
            names = (*rewritten.values, *rewritten.presences, *rewritten.strings)
            compiled = _environment(names, optional=True).compile(rewritten.text)
        except ImportError as error:
            raise ConfigurationError(
                f"{where}: the expression {source!r} is CEL, which is not installed "
                f'({error}): pip install "durable-jobs[cel]", or pass a callable.'
            ) from None
        except RefusedExpression as error:
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
        """Tell whether the result is a condition's, as far as can be known before."""
        return self.result_type in ("BOOL", "DYN", "NULL")

    def run(self, values: Mapping[str, Any]) -> Any:
        """Give the result in JSON's own types, or raise ``Unfit``."""
        rewritten = self.rewritten
        found = {
            name: native(look_up(values, path))
            for name, path in rewritten.values.items()
        }
        if rewritten.text in found:  # nothing but one attribute
            return found[rewritten.text]
        exact = Exact(found, rewritten)
        data = {**exact.values}
        for name, path in rewritten.strings.items():
            data[name] = _as_digits(native(look_up(values, path)))
        for name, path in rewritten.presences.items():
            data[name] = is_there(values, path)
        try:
            result = self.compiled.eval(data=data)
            kind = result.type().name()
            value = result.plain_value()
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise Unfit(_reason(str(error))) from None
        if kind != "ERROR":
            return exact.result(value)
        if self._is_null(value, data):
            return None
        raise Unfit(_reason(value))

    def _is_null(self, error: str, data: Mapping[str, Any]) -> bool:
        if _NULL.search(error):
            return True
        doubtful = self.rewritten.loops or None in data.values()
        return doubtful and _MAYBE_NULL.search(error) is not None


def _as_digits(value: Any) -> Any:
    """Give a whole number as the digits that ``string()`` gives for it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # equal numbers have one text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


@lru_cache(maxsize=256)
def _environment(variables: tuple[str, ...], *, optional: bool = False) -> Any:
    cel: Any = import_module("cel_expr_python.cel")
    extensions = []
    if optional:
        # Only what the rewriting writes needs it: users have no optional values.
        found: Any = import_module("cel_expr_python.ext.ext_optional")
        extensions.append(found.ExtOptional())
    return cel.NewEnv(
        variables=dict.fromkeys(variables, cel.Type.DYN), extensions=extensions
    )


def _reason(error: str) -> str:
    """Give the runtime's message without its codes."""
    error = re.sub(r"^[A-Z_]+: ", "", error)
    error = re.sub(r"\.?(?: \[[A-Z_]+\])?$", "", error)
    error = re.sub(r" expecting \{.*?\}(?=\n|$)", "", error)
    return _LOCATED.sub(r"line \1, column \2: ", error)
