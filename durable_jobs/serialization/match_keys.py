"""Match keys: hashes of the scalars in an event, for ``match="data.order_id"``.

A wait stores the key of its scalar. An event has the keys of all its scalars. So one
indexed lookup by the event's keys finds every matching wait.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from durable_jobs.exceptions import ConfigurationError, PayloadError
from durable_jobs.records import UnsupportedValue, mapping_of, native, scalar
from durable_jobs.serialization.canonical import canonical

#: The most scalars of one event with keys. Larger events are compared one by one.
MOST_LEAVES = 5_000
#: The most characters in the text of a scalar with a key.
LONGEST_SCALAR = 1_024
DEEPEST_PATH = 32

#: Up to this number, every integer equals one float.
_EXACT = 2**53

_NAME = re.compile(r"[\w-]+")
_PATH = re.compile(rf"data(?:\.{_NAME.pattern}){{1,{DEEPEST_PATH - 1}}}")


def check_match_path(path: Any, where: str) -> str:
    """Return the path. Raise ``ConfigurationError`` if it is invalid.

    A path is ``data.`` and the keys to the scalar, separated by dots. ``where`` begins
    the message.
    """
    if not isinstance(path, str) or not _PATH.fullmatch(path):
        raise ConfigurationError(
            f"{where}: match is {path!r}; expected a path such as 'data.order_id' or "
            "'data.order.id'."
        )
    return path


def match_key(path: str, data: Mapping[str, Any]) -> str | None:
    """Return the key of the scalar at a path: 40 hexadecimal digits, or None.

    ``data`` is the root of the path, ``{"data": {...}}``. None means that the value is
    missing, null, not a scalar, or too long. Such a value matches no other.
    """
    value: Any = data
    for name in path.split("."):
        mapping = mapping_of(value)
        if mapping is None:
            return None
        value = mapping.get(name)
    return _key(path, value)


def comparable(value: Any) -> str:
    """Return a text that is equal for two values exactly if they match."""
    with contextlib.suppress(
        UnsupportedValue
    ):  # for example bytes, which equal their stored form
        value = native(value)
    return canonical(value)


def leaf_keys(data: Mapping[str, Any]) -> set[str] | None:
    """Return the keys of all scalars that a path can name, or None if too many.

    ``match_key(path, a)`` is in ``leaf_keys(b)`` exactly if ``a`` and ``b`` have equal
    scalars at the path. ``equal_key`` is in it whenever CEL finds the two equal.
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


def equal_key(
    run_path: Sequence[str | int], path: Sequence[str | int], data: Any
) -> str:
    """Return the key of events that CEL's ``event.<run_path> == async.<path>`` accepts.

    ``data`` is the root of ``run_path``. Return an empty string if the value is not a
    scalar, or if its equal values in CEL have several keys.
    """
    names = [name for name in path if isinstance(name, str) and _NAME.fullmatch(name)]
    if len(names) != len(path) or not 2 <= len(path) <= DEEPEST_PATH:
        return ""
    value = data
    for name in run_path:
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
