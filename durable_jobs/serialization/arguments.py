"""The arguments of a step's body as JSON for display: limited in size, never fails."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from durable_jobs.error_text import storable_text
from durable_jobs.serialization.codec import dumps
from durable_jobs.serialization.encoding import encode
from durable_jobs.serialization.tag_format import DEEPEST, TAG, tag

#: The most bytes of arguments that are stored.
LARGEST = 4096
#: With more characters and values than this, arguments are not even encoded.
MEASURED = 100_000
NOT_STORED = "not stored"
_SMALL = frozenset({int, float, bool, type(None)})


def arguments_text(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return ``{"args": […], "kwargs": {…}}`` as JSON text, or None without arguments.

    An empty part is omitted. ``{"not stored": …}`` replaces a value that cannot be
    stored, with its type, and everything if that takes more than ``LARGEST`` bytes.
    """
    if not args and not kwargs:
        return None
    given: dict[str, Any] = {"args": list(args)} if args else {}
    if kwargs:
        given["kwargs"] = dict(kwargs)
    try:
        budget = MEASURED
        for value in (*args, *kwargs.values()):
            if type(value) not in _SMALL:
                budget = _remaining(value, budget)
        if budget < 0:
            return _placeholder(f"more than {MEASURED:,} bytes")
        text = _text(given)
    except Exception:  # noqa: BLE001  # other threads may change the objects
        return _placeholder("arguments that cannot be read")
    size = len(text) if text.isascii() else len(text.encode())
    return text if size <= LARGEST else _placeholder(f"{size:,} bytes")


def _placeholder(what: str) -> str:
    return json.dumps({NOT_STORED: what})


def _remaining(value: Any, budget: int) -> int:
    """Return the budget minus the size of a value, or a number below 0."""
    kind = type(value)
    if kind is str or kind is bytes:
        return budget - 1 - len(value)
    budget -= 1
    inside: Iterable[Any] = ()
    if kind is dict:
        inside = (item for pair in value.items() for item in pair)
    elif kind in (list, tuple, set, frozenset):
        inside = value
    for item in inside:
        budget = _remaining(item, budget)
        if budget < 0:
            break
    return budget


def _text(given: dict[str, Any]) -> str:
    try:
        return dumps(given, what="the arguments")
    except Exception:  # noqa: BLE001  # from the codec, or from the value's class
        return json.dumps(_tree(given, 0), ensure_ascii=False, separators=(",", ":"))


def _tree(value: Any, depth: int) -> Any:
    """Return the tree of a value.

    Replace values that cannot be stored by their type.
    """
    kind = type(value)
    if depth < DEEPEST:
        if kind is list:
            return [_tree(item, depth + 1) for item in value]
        if kind is tuple:
            return tag("tuple", [_tree(item, depth + 1) for item in value])
        if kind is dict and set(map(type, value)) <= {str} and TAG not in value:
            return {
                storable_text(key): _tree(item, depth + 1)
                for key, item in value.items()
            }
    try:
        return encode(value, depth)
    except Exception:  # noqa: BLE001  # from the codec, or from the value's class
        return {NOT_STORED: storable_text(_name(kind), 200)}


def _name(kind: type) -> str:
    plain = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"
