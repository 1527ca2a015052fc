"""The JSON view of Python values.

Keys, conditions and ``match`` all compare values by this view, so they agree.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

#: The levels of an event, plus those that the engine wraps around it.
_DEEPEST = 200
#: A Decimal with more digits before or after the point has no JSON view.
_MOST_DIGITS = 1_024
_EASY = frozenset({type(None), bool, int, str})

Scalar = str | int | float | bool | None


class UnsupportedValue(Exception):
    """A value has no JSON view, or cannot be used exactly. The message says why."""


def mapping_of(value: Any) -> Mapping[Any, Any] | None:
    """Return a mapping, or the fields of a dataclass or pydantic model, else None."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name, None) for name in names}
    # Read from the class, so that pydantic need not be installed.
    fields = getattr(type(value), "__pydantic_fields__", None)
    if fields is None:
        return None
    extra = getattr(value, "__pydantic_extra__", None) or {}
    return {name: getattr(value, name, None) for name in fields} | extra


def native(value: Any, depth: int = 0) -> Any:
    """Return a value in JSON types. Raise ``UnsupportedValue`` if it has none."""
    if type(value) in _EASY:
        return value
    if type(value) is float:
        return _finite(value)
    if depth > _DEEPEST:
        msg = f"a value is nested deeper than {_DEEPEST} levels"
        raise UnsupportedValue(msg)
    depth += 1
    if (mapping := mapping_of(value)) is not None:
        return {_key(key): native(item, depth) for key, item in mapping.items()}
    if isinstance(value, list | tuple):
        return [native(item, depth) for item in value]
    if isinstance(value, set | frozenset):
        # Sorted, since the order of equal sets differs between processes.
        items = [native(item, depth) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    found = scalar(value)
    if found is None:
        msg = (
            f"a value of type {type(value).__qualname__} has no JSON form; "
            "expected None, a bool, a number, a string, a list or a dict"
        )
        raise UnsupportedValue(msg)
    return native(found, depth)


def scalar(value: Any) -> Scalar:
    """Return the string, number or bool of a value in JSON, or None for others.

    UUIDs, dates and times are strings. A Decimal is a number if the number is exact,
    else its digits as a string.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool):
        return value
    for base in (str, int, float):
        if isinstance(value, base):
            return getattr(base, f"__{base.__name__}__")(value)  # type: ignore[no-any-return]  # a string or a number
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        exact = abs(value.days) < 100_000  # up to here, floats distinguish microseconds
        return seconds if exact else str(value)
    return None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        msg = f"{value!r} has no JSON form; expected a finite number"
        raise UnsupportedValue(msg)
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        msg = f"a mapping has the key {key!r:.100}; expected keys that are strings"
        raise UnsupportedValue(msg)
    return str.__str__(key)


def _decimal(value: Decimal) -> Scalar:
    if not value.is_finite():
        return None
    if not value:
        return 0
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "it is finite"
    if max(value.adjusted(), -exponent) > _MOST_DIGITS:
        return None
    whole, _, part = format(value, "f").partition(".")
    part = part.rstrip("0")
    if not part:
        return int(whole)
    text = f"{whole}.{part}"
    number = float(text)
    return number if Decimal(repr(number)) == value else text


def _moment(value: datetime) -> str:
    if value.tzinfo is None:
        return value.isoformat()
    try:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:  # within hours of the first or the last year
        return value.isoformat()
