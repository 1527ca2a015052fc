"""Keys of the scalars in an event, for ``match="data.order_id"``.

A wait keeps the key of its scalar; an event has the keys of all its scalars. So one
indexed lookup by the event's keys finds every wait that it wakes, and nobody compares
events with waits one by one.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from durable_jobs.exceptions import ConfigurationError, PayloadError
from durable_jobs.records import Unfit, mapping_of, native, scalar
from durable_jobs.serialization.canonical import canonical

#: Scalars of one event that have keys; with more, the event has to be looked at.
MOST_LEAVES = 5_000
#: Characters in the text of a scalar that has a key.
LONGEST_SCALAR = 1_024
DEEPEST_PATH = 32

#: Numbers up to this one are the same as integers and as floats.
_EXACT = 2**53

_NAME = re.compile(r"[\w-]+")
_PATH = re.compile(rf"data(?:\.{_NAME.pattern}){{1,{DEEPEST_PATH - 1}}}")


def check_match_path(path: Any, where: str) -> str:
    """Give the path back, or raise ``ConfigurationError`` when it is none.

    A path is ``data.`` and the keys that lead to the scalar, with dots between them.
    ``where`` says whose path it is.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigurationError(
            f"{where}: match is {path!r}; expected a path such as 'data.order_id' or "
            "'data.order.id'."
        )
    return path


def match_key(path: str, data: Mapping[str, Any]) -> str | None:
    """Give the key of the scalar at a path: 40 hexadecimal digits.

    ``data`` is what the path starts in, ``{"data": {...}}``. None when the value there
    is missing, null, no scalar or too long: such a value equals no other.
    """
    value: Any = data
    for name in path.split("."):
        mapping = mapping_of(value)
        if mapping is None:
            return None
        value = mapping.get(name)
    return _key(path, value)


def comparable(value: Any) -> str:
    """Give a text that two values at one path share just when they match."""
    with contextlib.suppress(Unfit):  # such as bytes: equal to what is stored so
        value = native(value)
    return canonical(value)


def leaf_keys(data: Mapping[str, Any]) -> set[str] | None:
    """Give the keys of all the scalars that a path can lead to, or None: too many.

    ``match_key(path, a)`` is in ``leaf_keys(b)`` just when ``a`` and ``b`` have equal
    scalars at the path; ``equal_key`` is there whenever CEL takes the two for equal.
    """
    keys: set[str] = set()
    left = MOST_LEAVES
    branches: list[tuple[str, int, Mapping[Any, Any]]] = [("", 0, data)]
    while branches:
        prefix, depth, branch = branches.pop()
        left -= len(branch)
        if left < 0:
            return None
        for name, value in branch.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                continue
            path = prefix + name
            if (inside := mapping_of(value)) is not None:
                if depth + 1 < DEEPEST_PATH:
                    branches.append((path + ".", depth + 1, inside))
                continue
            key = _key(path, value)
            if key is not None:
                keys.add(key)
    return keys


def equal_key(own: Sequence[str | int], path: Sequence[str | int], data: Any) -> str:
    """Give the key under which CEL's ``event.<own> == async.<path>`` finds an event.

    ``data`` is what ``own`` starts in. An empty text when there is none: the value is
    no scalar, or one whose equal values in CEL have several keys.
    """
    names = [name for name in path if isinstance(name, str) and _NAME.fullmatch(name)]
    if len(names) != len(path) or not 2 <= len(path) <= DEEPEST_PATH:
        return ""
    value = data
    for name in own:
        mapping = mapping_of(value)
        if mapping is None:
            return ""
        value = mapping.get(name)
    value = scalar(value)
    if path[0] != "data" or (isinstance(value, int | float) and abs(value) > _EXACT):
        return ""
    return _key(".".join(names), value) or ""


def _key(path: str, value: Any) -> str | None:
    value = scalar(value)
    if value is None:
        return None
    try:
        text = canonical(value)
    except PayloadError:
        return None
    if len(text) > LONGEST_SCALAR:
        return None
    name = f"{path}={text}".encode()
    return hashlib.sha1(name, usedforsecurity=False).hexdigest()
