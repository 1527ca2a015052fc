"""Read JSON that a user types, which may contain the tags that pages display.

A typed tag has less power than a stored tag. It may be a scalar or a builtin container.
An instance of a class is read as the dict of its fields, and an enum member as its
value, so that a schema validates them. The caller resolves references to rows, and
checks whether the user may view them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from durable_jobs.exceptions import PayloadError
from durable_jobs.serialization.classes import find_class
from durable_jobs.serialization.decoding import PLAIN_READERS, read_tag
from durable_jobs.serialization.references import Reference
from durable_jobs.serialization.tag_format import TAG, VALUE

Find = Callable[[Reference], Any]
#: One message for every invalid reference, so that it reveals nothing of other rows.
NOT_FOUND = (
    "The text refers to an object that does not exist, or that you may not view."
)
_KEYS = (str, int)


def from_typed(tree: Any, find: Find) -> Any:
    """Return the value of a typed tree. Raise ``PayloadError`` if it is invalid.

    ``find`` returns the row of a reference, or None if the user may not have it.
    """
    if isinstance(tree, list):
        return [from_typed(item, find) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if TAG not in tree:
        return {key: from_typed(item, find) for key, item in tree.items()}
    kind, held = tree[TAG], tree.get(VALUE)
    if kind == "model":
        return _row(held, find)
    if isinstance(kind, str) and kind in _CLASSES:
        try:
            return from_typed(_CLASSES[kind](held), find)
        except PayloadError:
            raise
        except Exception:  # noqa: BLE001  # the typed tree can have any shape
            raise PayloadError(f"The text has a {kind} that cannot be read.") from None
    inner = {key: from_typed(item, find) for key, item in tree.items()}
    return read_tag(inner, PLAIN_READERS, [*PLAIN_READERS, *_CLASSES, "model"])


def _row(held: Any, find: Find) -> Any:
    reference = _reference(held)
    row = None if reference is None else find(reference)
    if row is None:
        raise PayloadError(NOT_FOUND)
    return row


def _reference(held: Any) -> Reference | None:
    """Return the reference, or None if its shape is invalid."""
    if not isinstance(held, list) or len(held) != 3:
        return None
    label, key, alias = held
    if isinstance(key, dict):
        try:
            key = read_tag(key, PLAIN_READERS, PLAIN_READERS)
            hash(key)
        except (PayloadError, TypeError):
            return None
    elif type(key) not in _KEYS:
        return None
    if not isinstance(label, str) or not isinstance(alias, str | None):
        return None
    return Reference(label, key, alias)


def _fields(held: Any) -> dict[str, Any]:
    """Return the fields of an instance, including a pydantic model's extra fields."""
    _name, fields, *rest = held
    extra = rest[1] if len(rest) > 1 and rest[1] else {}
    return {**fields, **extra}


def _member(held: Any) -> Any:
    name, member = held
    cls = find_class(name)
    if not issubclass(cls, Enum):
        raise TypeError
    return cls[member].value


_CLASSES: dict[str, Callable[[Any], Any]] = {
    "dataclass": _fields,
    "enum": _member,
    "flag": lambda held: int(held[1]),
    "namedtuple": lambda held: list(held[1]),
    "pydantic": _fields,
}
