"""What a body was called with, as JSON for people: it never fails, and is bounded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from durable_jobs.error_text import storable_text
from durable_jobs.serialization.codec import dumps
from durable_jobs.serialization.encoding import encode
from durable_jobs.serialization.tags import DEEPEST, TAG, tag

#: Bytes up to which arguments are stored.
LARGEST = 4096
#: Characters and values beyond which arguments are not even measured.
MEASURED = 100_000
NOT_STORED = "not stored"
_SMALL = frozenset({int, float, bool, type(None)})


def arguments_text(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """Return ``{"args": […], "kwargs": {…}}`` as JSON text; None without arguments.

    The empty one of the two is left out. ``{"not stored": …}`` stands for what cannot
    be stored, with its type, and for all of what takes more than ``LARGEST`` bytes.
    """
    if not args and not kwargs:
        return None
    given: dict[str, Any] = {"args": list(args)} if args else {}
    if kwargs:
        given["kwargs"] = dict(kwargs)
    try:
        room = MEASURED
        for value in (*args, *kwargs.values()):
            if type(value) not in _SMALL:
                room = _left(value, room)
        if room < 0:
            return _instead(f"more than {MEASURED:,} bytes")
        text = _text(given)
    except Exception:  # noqa: BLE001  # whatever objects do that others may be changing
        return _instead("arguments that cannot be read")
    size = len(text) if text.isascii() else len(text.encode())
    return text if size <= LARGEST else _instead(f"{size:,} bytes")


def _instead(what: str) -> str:
    return json.dumps({NOT_STORED: what})


def _left(value: Any, room: int) -> int:
    """Return what a value leaves of some room, below 0 as soon as it leaves none."""
    kind = type(value)
    if kind is str or kind is bytes:
        return room - 1 - len(value)
    room -= 1
    inside: Iterable[Any] = ()
    if kind is dict:
        inside = (item for pair in value.items() for item in pair)
    elif kind in (list, tuple, set, frozenset):
        inside = value
    for item in inside:
        room = _left(item, room)
        if room < 0:
            break
    return room


def _text(given: dict[str, Any]) -> str:
    try:
        return dumps(given, what="the arguments")
    except Exception:  # noqa: BLE001  # of the codec, or of what it looks at
        return json.dumps(_tree(given, 0), ensure_ascii=False, separators=(",", ":"))


def _tree(value: Any, depth: int) -> Any:
    """Return the tree of a value, in which what cannot be stored is its type."""
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
    except Exception:  # noqa: BLE001  # of the codec, or of what it looks at
        return {NOT_STORED: storable_text(_name(kind), 200)}


def _name(kind: type) -> str:
    plain = kind.__module__ in ("builtins", "__main__")
    return kind.__qualname__ if plain else f"{kind.__module__}.{kind.__qualname__}"
