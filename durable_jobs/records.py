"""Python values, seen as the values that they are in JSON.

Keys, conditions and ``match`` compare values by this view, so all three agree.
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

#: What an event may hold, and what the engine puts around it.
_DEEPEST = 200
#: Digits before the point or after it, above which a Decimal has no such view.
_MOST_DIGITS = 1_024
_EASY = frozenset({type(None), bool, int, str})

Scalar = str | int | float | bool | None


class Unfit(Exception):
    """A value has no view in JSON, or cannot be used exactly; the text says why."""


def mapping_of(value: Any) -> Mapping[Any, Any] | None:
    """Return a mapping, or the fields of a dataclass or pydantic model, else None."""
    if isinstance(value, Mapping):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: getattr(value, name, None) for name in names}
    # Asked of the class: nobody has to have pydantic for it.
    fields = getattr(type(value), "__pydantic_fields__", None)
    if fields is None:
        return None
    extra = getattr(value, "__pydantic_extra__", None) or {}
    return {name: getattr(value, name, None) for name in fields} | extra


def native(value: Any, depth: int = 0) -> Any:
    """Return a value in JSON's own types, or raise ``Unfit``."""
    if type(value) in _EASY:
        return value
    if type(value) is float:
        return _finite(value)
    if depth > _DEEPEST:
        msg = f"a value is nested deeper than {_DEEPEST} levels"
        raise Unfit(msg)
    depth += 1
    if (mapping := mapping_of(value)) is not None:
        return {_key(key): native(item, depth) for key, item in mapping.items()}
    if isinstance(value, list | tuple):
        return [native(item, depth) for item in value]
    if isinstance(value, set | frozenset):
        # In one order, whatever order the process has for equal sets.
        items = [native(item, depth) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    found = scalar(value)
    if found is None:
        msg = (
            f"a value of type {type(value).__qualname__} is none that JSON has; "
            "expected None, a bool, a number, a text, a list or a dict"
        )
        raise Unfit(msg)
    return native(found, depth)


def scalar(value: Any) -> Scalar:
    """Return the string, number or bool that a value is in JSON, None for the others.

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
        exact = abs(value.days) < 100_000  # where a float tells all microseconds apart
        return seconds if exact else str(value)
    return None


def _finite(value: float) -> float:
    if not math.isfinite(value):
        msg = f"{value!r} is no value that JSON has; expected a finite number"
        raise Unfit(msg)
    return value


def _key(key: Any) -> str:
    if not isinstance(key, str):
        msg = f"a mapping has the key {key!r:.100}; expected keys that are texts"
        raise Unfit(msg)
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
