"""Values on their way into CEL, and results on their way out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from durable_jobs.expressions.rewriting import Path
from durable_jobs.records import mapping_of

_DEEPEST = 100
_EASY = frozenset({type(None), bool, int, float, str})
_MISSING: Any = object()


class Unfit(Exception):
    """A value cannot go in, or a result cannot come out; the text says why."""


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


def native(value: Any, *, cel: bool = False, depth: int = 0) -> Any:
    """Give a value in JSON's own types, or raise ``Unfit``.

    For ``cel``, an integer that has no room in 64 bits is a float.
    """
    kind = type(value)
    if kind is float and not math.isfinite(value):
        raise Unfit(f"{value!r} is no value that JSON has; expected a finite number")
    if kind is int and cel and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 10**300 else str(value)
    if kind in _EASY:
        return value
    if depth > _DEEPEST:
        raise Unfit(f"a value is nested deeper than {_DEEPEST} levels")
    depth += 1
    if (mapping := mapping_of(value)) is not None:
        return {
            _key(key): native(item, cel=cel, depth=depth)
            for key, item in mapping.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [native(item, cel=cel, depth=depth) for item in value]
    return native(_scalar(value), cel=cel, depth=depth)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise Unfit(f"a mapping has the key {key!r}; expected keys that are texts")
    return str.__str__(key)


def _scalar(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    for base in (str, int, float):
        if isinstance(value, base):
            return getattr(base, f"__{base.__name__}__")(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        whole = value.is_finite() and value == value.to_integral_value()
        return int(value) if whole and value.adjusted() < 100 else float(value)
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise Unfit(
        f"a value of type {type(value).__qualname__} is none that JSON has; expected "
        "None, a bool, a number, a text, a list or a dict"
    )


def _moment(value: datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat()
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
