"""Decoding of trees to values."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from durable_jobs.control_flow import reraise_control
from durable_jobs.error_text import summary_of
from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.classes import find_class, is_pydantic
from durable_jobs.serialization.references import Reference, fetch
from durable_jobs.serialization.tag_format import TAG, VALUE, UnknownTag, tags_in


def decode(tree: Any) -> Any:
    """Return the value of a tree. Fetch referenced rows with one query per model."""
    references: set[Reference] = set()
    _collect(tree, references)
    return _Decoder(fetch(references)).decode(tree)


def decode_dict(tree: dict[str, Any]) -> Any:
    """Return the value of a dict with decoded items that is not a row reference."""
    return _untag(tree) if TAG in tree else tree


class _Decoder:
    """Decodes trees after the referenced rows have been fetched."""

    def __init__(self, rows: Mapping[Reference, Any]) -> None:
        self.rows = rows

    def decode(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self.decode(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        if tree.get(TAG) == "model":
            return self.rows[_reference(tree)]
        return decode_dict({key: self.decode(item) for key, item in tree.items()})


def _collect(tree: Any, into: set[Reference]) -> None:
    if isinstance(tree, list):
        for item in tree:
            _collect(item, into)
    elif isinstance(tree, dict):
        if tree.get(TAG) == "model":
            into.add(_reference(tree))
        else:
            for item in tree.values():
                _collect(item, into)


def _reference(tree: dict[str, Any]) -> Reference:
    try:
        label, key, alias = tree[VALUE]
        reference = Reference(label, decode(key), alias)
        hash(reference)
        return reference
    except (KeyError, TypeError, ValueError) as error:
        raise PayloadError(
            f"A stored reference cannot be read: {summary_of(error)}"
        ) from error


def unknown_tags(text: str) -> list[str]:
    """Return the kinds of tags in stored JSON text that this version cannot read."""
    return sorted(tags_in(text) - _READERS.keys() - {"model"})


def _untag(tree: dict[str, Any]) -> Any:
    kind = tree[TAG]
    if isinstance(kind, str) and kind not in _READERS:
        raise UnknownTag(
            f"A stored value has the tag {kind!r:.80}, which this version of "
            f"durable_jobs does not know: expected one of "
            f"{', '.join(sorted(_READERS))} (another version may have written it)."
        )
    return read_tag(tree, _READERS, _READERS)


def read_tag(
    tree: dict[str, Any],
    readers: Mapping[str, Callable[[Any], Any]],
    known: Iterable[str],
) -> Any:
    """Return the value of a tag with decoded items.

    Raise ``PayloadError`` if invalid.
    """
    kind = tree.get(TAG)
    reader = readers.get(kind) if isinstance(kind, str) else None
    if reader is None or len(tree) != 2 or VALUE not in tree:
        raise PayloadError(
            f"A stored value has the tag {kind!r:.80}: expected one of "
            f"{', '.join(sorted(known))} (another version may have written it)."
        )
    try:
        return reader(tree[VALUE])
    except PayloadError:
        raise
    except BaseException as error:
        reraise_control(error)
        raise PayloadError(
            f"A stored {kind} cannot be read: {summary_of(error)}"
        ) from error


def _moment(kind: type[Any]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if isinstance(value, str):
            return kind.fromisoformat(value)
        text, zone, fold = value
        result = kind.fromisoformat(text).replace(fold=fold)
        return result.replace(tzinfo=ZoneInfo(zone)) if zone else result

    return read


def _class(name: Any, expected: str, is_expected: Callable[[type], bool]) -> Any:
    cls = find_class(name)
    if not is_expected(cls):
        raise PayloadError(
            f"A stored value is of the class {name!r}: expected {expected}."
        )
    return cls


def _enum(value: Any) -> Any:
    name, member = value
    cls = _class(name, "an enum", lambda cls: issubclass(cls, Enum))
    try:
        return cls[member]
    except KeyError:
        raise PayloadError(
            f"A stored value is the member {member!r} of {name!r}: expected one of "
            f"{', '.join(cls.__members__)}."
        ) from None


def _flag(value: Any) -> Any:
    name, number = value
    return _class(name, "a flag", lambda cls: issubclass(cls, Flag))(number)


def _namedtuple(value: Any) -> Any:
    name, items = value
    cls = _class(
        name,
        "a named tuple",
        lambda cls: issubclass(cls, tuple) and hasattr(cls, "_fields"),
    )
    return cls(*items)


def _dataclass(value: Any) -> Any:
    name, held = value
    cls = _class(name, "a dataclass", dataclasses.is_dataclass)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    held = {key: item for key, item in held.items() if key in fields}
    try:
        # A field that is newer than the stored value gets its default.
        result = cls(**{key: item for key, item in held.items() if fields[key].init})
    except TypeError:
        result = _bare_dataclass(cls, fields, held)
    for key, item in held.items():
        # Set again, since __post_init__ may have changed the values.
        object.__setattr__(result, key, item)
    return result


def _bare_dataclass(
    cls: Any, fields: Mapping[str, dataclasses.Field[Any]], held: Mapping[str, Any]
) -> Any:
    """Make one that its own ``__init__`` does not make from its fields alone."""
    result = object.__new__(cls)
    for key, field in fields.items():
        if key in held:
            continue
        if field.default is not dataclasses.MISSING:
            object.__setattr__(result, key, field.default)
        elif field.default_factory is not dataclasses.MISSING:
            object.__setattr__(result, key, field.default_factory())
        else:
            raise _missing_field(cls, key)
    return result


def _pydantic(value: Any) -> Any:
    from pydantic_core import PydanticUndefined  # pydantic is imported here

    name, held, names_set, *rest = value
    cls = _class(name, "a pydantic model", is_pydantic)
    extra, private = rest or ({}, {})
    state = {key: item for key, item in held.items() if key in cls.model_fields}
    for key, field in cls.model_fields.items():
        if key not in state:
            if field.is_required():
                raise _missing_field(cls, key)
            state[key] = field.get_default(
                call_default_factory=True, validated_data=state
            )
    hidden = {
        key: attribute.get_default()
        for key, attribute in cls.__private_attributes__.items()
        if attribute.default_factory or attribute.default is not PydanticUndefined
    }
    # Not validated again: the loaded value equals the stored value.
    result = cls.__new__(cls)
    result.__setstate__(
        {
            "__dict__": state,
            "__pydantic_fields_set__": {key for key in names_set if key in state},
            "__pydantic_extra__": extra
            if cls.model_config.get("extra") == "allow"
            else None,
            "__pydantic_private__": {**hidden, **private}
            if cls.__private_attributes__
            else None,
        }
    )
    return result


def _missing_field(cls: type, field: str) -> PayloadError:
    return PayloadError(
        f"A stored {cls.__qualname__} lacks the field {field!r}: expected the field to "
        "have a default, since older values are stored without it."
    )


#: Tags of scalars and builtin containers, which look up no class.
PLAIN_READERS: dict[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "datetime": _moment(datetime),
    "time": _moment(time),
    "date": date.fromisoformat,
    "timedelta": lambda value: timedelta(*value),
    "decimal": Decimal,
    "uuid": UUID,
    "bytes": lambda value: base64.b64decode(value, validate=True),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    **PLAIN_READERS,
    "enum": _enum,
    "flag": _flag,
    "namedtuple": _namedtuple,
    "dataclass": _dataclass,
    "pydantic": _pydantic,
}
