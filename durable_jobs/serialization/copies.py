"""Copies of stored values for project code, which may change them."""

from __future__ import annotations

import copy
import enum
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType
from typing import Any
from uuid import UUID

#: Types whose values never change.
_FIXED = frozenset(
    {
        NoneType,
        bool,
        int,
        float,
        str,
        bytes,
        Decimal,
        datetime,
        date,
        time,
        timedelta,
        UUID,
    }
)


def private_copy(value: Any) -> Any:
    """Return a copy of a stored value that shares no mutable object with the original.

    Much faster than ``deepcopy`` for JSON types, since a stored value has no cycles.
    """
    kind = type(value)
    if kind in _FIXED:
        return value
    if kind is dict:
        return {key: private_copy(item) for key, item in value.items()}
    if kind is list:
        return [private_copy(item) for item in value]
    if kind is tuple:
        return tuple([private_copy(item) for item in value])
    if isinstance(value, enum.Enum):
        return value
    return copy.deepcopy(value)
