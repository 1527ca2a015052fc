"""The test for the fast path: whether plain JSON preserves a value exactly."""

from __future__ import annotations

from typing import Any

from durable_jobs.serialization.tag_format import DEEPEST

SMALLEST_INT = -(2**63)
LARGEST_INT = 2**63 - 1

_NONE = type(None)
#: Types of which every value is preserved. Strings are checked at the end, in one go.
_EASY = frozenset({str, bool, _NONE})
_ONLY_STR = {str}


def is_plain_float(value: float) -> bool:
    """Return whether a float is written without an exponent and is not -0.0."""
    return 1e-4 <= value < 1e16 or -1e16 < value <= -1e-4 or str(value) == "0.0"


def is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value has only exact JSON types and is not too deep."""
    kind = type(value)
    if kind in _EASY:
        return True
    if kind is int:
        return bool(SMALLEST_INT <= value <= LARGEST_INT)
    if kind is float:
        return is_plain_float(value)
    if depth >= DEEPEST:
        return False
    if kind is list:
        return _all_plain(value, depth + 1)
    if kind is dict and (not value or set(map(type, value)) == _ONLY_STR):
        return _all_plain(value.values(), depth + 1)
    return False


def _all_plain(values: Any, depth: int) -> bool:
    # Long lists mostly have one type, which ``set(map(type, …))`` checks fast.
    kinds = set(map(type, values))
    if kinds <= _EASY:
        return True
    if len(kinds) == 1 and int in kinds:
        return bool(min(values) >= SMALLEST_INT and max(values) <= LARGEST_INT)
    return all(is_plain(value, depth) for value in values)
