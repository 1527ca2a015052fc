"""Values on their way into CEL, and results on their way out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from durable_jobs.expressions.rewriting import Path, Rewritten
from durable_jobs.records import Unfit, mapping_of, native

_MISSING: Any = object()
#: From here on, floats do not tell all integers apart.
_LARGE = 2**53
_LEAST, _PAST = -(2**63), 2**64


def look_up(values: Mapping[str, Any], path: Path, default: Any = None) -> Any:
    """Give what a path leads to, or the default where it leads nowhere."""
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


def is_there(values: Mapping[str, Any], path: Path) -> bool:
    """Tell whether a path leads somewhere, if only to null."""
    return look_up(values, path, _MISSING) is not _MISSING


class Exact:
    """The values of one evaluation, so that CEL compares their numbers exactly.

    CEL compares an integer with a float as two floats: 2**53 + 1 equals 2.0**53 there,
    and it has no integers beyond 64 bits. So where a value is that large:

    * If all integers equal some float, those beyond 64 bits go in as that float.
    * Else large floats go in as the integers that they are, and numbers beyond 64 bits
      as stand-ins: floats that are in the same order, and beyond 64 bits too.
    * What would still not be exact, such as calculating, raises ``Unfit``.
    """

    def __init__(self, values: Mapping[str, Any], text: Rewritten) -> None:
        self.values: Mapping[str, Any] = values
        self._given: dict[float, int | float] = {}
        self._stand_ins: dict[int | float, float] = {}
        numbers = [one for value in values.values() for one in _numbers(value)]
        large = [one for one in numbers if abs(one) >= _LARGE]
        if not large and not text.lossy:
            return
        self._lossy = text.lossy or any(map(_is_lossy, large))
        _check(text, numbers, large, lossy=self._lossy)
        wide = sorted({one for one in large if not _LEAST <= one < _PAST})
        below = sum(one < 0 for one in wide)
        for rank, number in enumerate(wide):
            place = rank - below + (rank >= below)
            code = math.copysign(2.0**65 + abs(place) * 2.0**20, place)
            code = code if self._lossy else float(number)
            self._stand_ins[number], self._given[code] = code, number
        self.values = {name: _mapped(self._in, one) for name, one in values.items()}

    def result(self, value: Any) -> Any:
        """Return a result of CEL in JSON's types, or raise ``Unfit``."""
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
    """Tell whether no float equals an integer."""
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
    """Raise ``Unfit`` if CEL would make an inexact result of large numbers."""
    ints = [one for one in numbers if isinstance(one, int)]
    wide = [one for one in ints if not _LEAST <= one < 2**63]
    for used, what in ((text.calculates, "calculates"), (text.converts, "converts")):
        if wide and used:
            msg = (
                f"it {what}, and a value is an integer beyond 64 bits: "
                f"{hex(wide[0])[:40]}; expected only comparisons with it, or a Python "
                "callable"
            )
            raise Unfit(msg)
    mixed = text.floats or len(ints) < len(numbers)
    doubtful = text.calculates and mixed and ints and large
    if doubtful or (lossy and text.large_floats):
        msg = (
            "it mixes floats with integers that floats do not tell apart; expected "
            "numbers below 2**53, or a Python callable"
        )
        raise Unfit(msg)
