"""Encoding of values to trees. Each function takes a value and its depth."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db.models import Model
from django.utils.functional import Promise

from durable_jobs.serialization.classes import class_name, is_pydantic
from durable_jobs.serialization.path_error import EXPECTED, PathError
from durable_jobs.serialization.plain_json import (
    LARGEST_INT,
    SMALLEST_INT,
    is_plain_float,
)
from durable_jobs.serialization.tag_format import DEEPEST, TAG, tag

_TOO_LARGE_INT = 10**4000
Tree = Any


def encode(value: Any, depth: int = 0) -> Tree:
    """Return the tree of a value. Raise ``PathError`` if it cannot be stored."""
    return (_BY_TYPE.get(type(value)) or _other)(value, depth)


def _same(value: Any, depth: int) -> Tree:
    return value


def _int(value: int, depth: int) -> Tree:
    if SMALLEST_INT <= value <= LARGEST_INT:
        return int(value)
    if not -_TOO_LARGE_INT < value < _TOO_LARGE_INT:
        raise PathError("an integer of more than 4,000 digits cannot be stored")
    return tag("int", int.__repr__(value))


def _float(value: float, depth: int) -> Tree:
    if value != value or value in (float("inf"), float("-inf")):
        raise PathError(
            f"the float {value!r} cannot be stored; expected a finite number"
        )
    return value if is_plain_float(value) else tag("float", float.__repr__(value))


def _str(value: str, depth: int) -> Tree:
    if "\x00" in value:
        raise PathError("a string with a NUL character cannot be stored")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise PathError(
                f"a string with a lone surrogate (at {error.start}) cannot be stored"
            ) from None
    return value


def _items(values: Iterable[Any], depth: int) -> list[Tree]:
    below = _below(depth)
    result: list[Tree] = []
    for value in values:
        try:
            result.append(encode(value, below))
        except PathError as refusal:
            refusal.inside(len(result))
            raise
    return result


def _named(values: Iterable[tuple[str, Any]], depth: int) -> dict[str, Tree]:
    below = _below(depth)
    result = {}
    for name, value in values:
        try:
            result[_str(name, below)] = encode(value, below)
        except PathError as refusal:
            refusal.inside(name)
            raise
    return result


def _dict(value: dict[Any, Any], depth: int) -> Tree:
    if set(map(type, value)) <= {str} and TAG not in value:
        return _named(value.items(), depth)
    below = _below(depth)
    pairs = []
    for key, item in value.items():
        try:
            pairs.append([encode(key, below), encode(item, below)])
        except PathError as refusal:
            refusal.inside(key if isinstance(key, str | int) else repr(key))
            raise
    return tag("dict", pairs)


def _below(depth: int) -> int:
    if depth >= DEEPEST:
        raise PathError(
            f"it is nested deeper than {DEEPEST} levels (or contains itself)"
        )
    return depth + 1


def _tuple(value: tuple[Any, ...], depth: int) -> Tree:
    return tag("tuple", _items(value, depth))


def _set(kind: str) -> Callable[[Any, int], Tree]:
    def encode_set(value: Any, depth: int) -> Tree:
        # Sorted, so that equal sets give equal text with any hash seed.
        return tag(kind, sorted(_items(value, depth), key=json.dumps))

    return encode_set


def _moment(kind: str) -> Callable[[Any, int], Tree]:
    def encode_moment(value: datetime | time, depth: int) -> Tree:
        zone = value.tzinfo
        if isinstance(zone, ZoneInfo) and zone.key:
            wall = value.replace(tzinfo=None).isoformat()
            return tag(kind, [wall, zone.key, value.fold])
        if value.fold:
            return tag(kind, [value.isoformat(), None, value.fold])
        return tag(kind, value.isoformat())

    return encode_moment


def _date(value: date, depth: int) -> Tree:
    return tag("date", value.isoformat())


def _timedelta(value: timedelta, depth: int) -> Tree:
    return tag("timedelta", [value.days, value.seconds, value.microseconds])


def _decimal(value: Decimal, depth: int) -> Tree:
    if not value.is_finite():
        raise PathError(f"{value!r} cannot be stored; expected a finite number")
    return tag("decimal", str(value))


def _uuid(value: UUID, depth: int) -> Tree:
    return tag("uuid", str(value))


def _bytes(value: bytes, depth: int) -> Tree:
    return tag("bytes", base64.b64encode(value).decode("ascii"))


def _enum(value: Enum, depth: int) -> Tree:
    name = class_name(type(value))
    if isinstance(value, Flag):
        return tag("flag", [name, encode(value.value, depth)])
    return tag("enum", [name, value.name])


def _dataclass(value: Any, depth: int) -> Tree:
    cls: type = type(value)
    name = class_name(cls)
    try:
        found = [
            (field.name, getattr(value, field.name))
            for field in dataclasses.fields(value)
        ]
    except AttributeError as error:
        raise PathError(
            f"a dataclass that lacks a field cannot be stored ({error})"
        ) from error
    return tag("dataclass", [name, _named(found, depth)])


def _pydantic(value: Any, depth: int) -> Tree:
    cls: type = type(value)
    name = class_name(cls)
    names = value.__pydantic_fields__
    held = [(key, item) for key, item in value.__dict__.items() if key in names]
    parts: list[Tree] = [name, _named(held, depth), sorted(value.model_fields_set)]
    extra = value.__pydantic_extra__
    private = value.__pydantic_private__
    if extra or private:
        parts.append(_named((extra or {}).items(), depth))
        parts.append(_named((private or {}).items(), depth))
    return tag("pydantic", parts)


def _model(value: Model, depth: int) -> Tree:
    meta = value._meta
    if value.pk is None or value._state.adding:
        raise PathError(
            f"an unsaved instance of {meta.label} cannot be stored; save it first"
        )
    return tag("model", [meta.label_lower, encode(value.pk, depth), value._state.db])


def _other(value: Any, depth: int) -> Tree:
    """Encode a value whose exact type is not in the table, by ``isinstance``."""
    if isinstance(value, type):
        raise PathError(f"the class {value.__qualname__} cannot be stored; {EXPECTED}")
    if isinstance(value, Enum):
        return _enum(value, depth)
    if isinstance(value, Model):
        return _model(value, depth)
    if dataclasses.is_dataclass(value):
        return _dataclass(value, depth)
    if is_pydantic(type(value)):
        return _pydantic(value, depth)
    if isinstance(value, Promise):
        return _str(str(value), depth)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return tag("namedtuple", [class_name(type(value)), _items(value, depth)])
    for base, plain in _BASES:
        if isinstance(value, base):
            return encode(plain(value), depth)
    raise PathError(
        f"object of type {type(value).__qualname__} cannot be stored; {EXPECTED}"
    )


_BY_TYPE: dict[type, Callable[[Any, int], Tree]] = {
    type(None): _same,
    bool: _same,
    int: _int,
    float: _float,
    str: _str,
    list: _items,
    dict: _dict,
    tuple: _tuple,
    set: _set("set"),
    frozenset: _set("frozenset"),
    datetime: _moment("datetime"),
    time: _moment("time"),
    date: _date,
    timedelta: _timedelta,
    Decimal: _decimal,
    UUID: _uuid,
    bytes: _bytes,
}

_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (dict, lambda value: dict(value.items())),
    (list, list),
    (tuple, tuple),
    (set, set),
    (frozenset, frozenset),
    (bytes, bytes),
    (
        datetime,
        lambda value: datetime.combine(
            date(value.year, value.month, value.day), value.timetz()
        ),
    ),
    (date, lambda value: date(value.year, value.month, value.day)),
    (timedelta, lambda value: timedelta(value.days, value.seconds, value.microseconds)),
    (Decimal, Decimal),
    (UUID, lambda value: UUID(int=value.int)),
)
