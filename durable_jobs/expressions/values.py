"""Conversion of values for CEL, and of its results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from durable_jobs.expressions.rewriting import Path, Rewritten
from durable_jobs.records import UnsupportedValue, mapping_of, native

_MISSING: Any = object()
#: From this number on, some integers have no equal float.
_LARGE = 2**53
_LEAST, _PAST = -(2**63), 2**64


def look_up(values: Mapping[str, Any], path: Path, default: Any = None) -> Any:
    """Return the value at a path, or the default if there is none."""
    found: Any = values
    for key in path:
        if isinstance(found, list | tuple) and isinstance(key, int):
            found = found[key] if key < len(found) else _MISSING
        elif (mapping := mapping_of(found)) is not None:
            found = mapping.get(key, _MISSING)
        else:
            return default
        if found is _MISSING:
            return default
    return found


def is_present(values: Mapping[str, Any], path: Path) -> bool:
    """Return whether there is a value at a path, including null."""
    return look_up(values, path, _MISSING) is not _MISSING


class ExactNumbers:
    """The values of one evaluation, converted so that CEL compares numbers exactly.

    CEL compares an integer with a float as two floats, so 2**53 + 1 equals 2.0**53. It
    also has no integers beyond 64 bits. If a value is that large:

    * If every integer equals some float, integers beyond 64 bits become that float.
    * Else large floats become integers. Numbers beyond 64 bits become stand-ins: floats
      beyond 64 bits in the same order.
    * Any other use that would be inexact raises ``UnsupportedValue``.
    """

    def __init__(self, values: Mapping[str, Any], text: Rewritten) -> None:
        self.values: Mapping[str, Any] = values
        self._given: dict[float, int | float] = {}
        self._stand_ins: dict[int | float, float] = {}
        numbers = [n for value in values.values() for n in _numbers(value)]
        large = [n for n in numbers if abs(n) >= _LARGE]
        if not large and not text.lossy:
            return
        self._lossy = text.lossy or any(map(_is_lossy, large))
        _check(text, numbers, large, lossy=self._lossy)
        wide = sorted({n for n in large if not _LEAST <= n < _PAST})
        below = sum(n < 0 for n in wide)
        for rank, number in enumerate(wide):
            place = rank - below + (rank >= below)
            code = math.copysign(2.0**65 + abs(place) * 2.0**20, place)
            code = code if self._lossy else float(number)
            self._stand_ins[number], self._given[code] = code, number
        self.values = {name: _mapped(self._in, item) for name, item in values.items()}

    def result(self, value: Any) -> Any:
        """Return a result of CEL in JSON types.

        Raise ``UnsupportedValue`` if invalid.
        """
        return native(_mapped(self._out, value) if self._given else value)

    def _in(self, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if value in self._stand_ins:
            return self._stand_ins[value]
        large_float = isinstance(value, float) and abs(value) >= _LARGE
        return int(value) if large_float and self._lossy else value

    def _out(self, value: Any) -> Any:
        return self._given.get(value, value) if isinstance(value, float) else value


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return a value with every scalar in it changed."""
    if isinstance(value, Mapping):
        return {key: _mapped(change, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_mapped(change, item) for item in value]
    return change(value)


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def _is_lossy(value: int | float) -> bool:
    """Return whether the value is an integer that no float equals."""
    if isinstance(value, float):
        return False
    try:
        return int(float(value)) != value
    except OverflowError:
        return True


def _check(
    text: Rewritten,
    numbers: list[int | float],
    large: list[int | float],
    *,
    lossy: bool,
) -> None:
    """Raise ``UnsupportedValue`` if CEL would give an inexact result."""
    ints = [n for n in numbers if isinstance(n, int)]
    wide = [n for n in ints if not _LEAST <= n < 2**63]
    for used, what in ((text.calculates, "calculates"), (text.converts, "converts")):
        if wide and used:
            msg = (
                f"it {what}, and a value is an integer beyond 64 bits: "
                f"{hex(wide[0])[:40]}; expected only comparisons with it, or a Python "
                "callable"
            )
            raise UnsupportedValue(msg)
    mixed = text.floats or len(ints) < len(numbers)
    doubtful = text.calculates and mixed and ints and large
    if doubtful or (lossy and text.large_floats):
        msg = (
            "it mixes floats with integers that no float equals; expected "
            "numbers below 2**53, or a Python callable"
        )
        raise UnsupportedValue(msg)
