"""Templates that turn a webhook into an event: ``{body.…}`` and ``{headers.…}``.

A string that is a single placeholder becomes the value itself, of any type, or None if
the value is missing. A placeholder inside a longer string must have a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from durable_jobs.definitions.events import NewEvent
from durable_jobs.exceptions import ConfigurationError, PayloadError

KEYS = ("name", "data", "id", "user", "v")
_PART = re.compile(r"\{([^{}]*)\}")
_PATH = re.compile(r"body(\.[^.\s{}]+)*|headers\.[A-Za-z0-9-]+")


def check_mapping(mapping: Mapping[str, Any], where: str) -> None:
    """Raise ``ConfigurationError`` unless the mapping is a valid template."""
    if not mapping or set(mapping) - set(KEYS):
        msg = f"{where}: expected keys among {', '.join(KEYS)}, got {list(mapping)}."
        raise ConfigurationError(msg)
    _check(dict(mapping), where)


def _check(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for item in value.values():
            _check(item, where)
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, where)
    elif isinstance(value, str):
        for path in _PART.findall(value):
            if not _PATH.fullmatch(path):
                msg = (
                    f"{where}: expected {{body.some.name}} or {{headers.some-name}}, "
                    f"got {{{path:.80}}}."
                )
                raise ConfigurationError(msg)


def make_event(
    mapping: Mapping[str, Any], default: str, body: Any, headers: Mapping[str, str]
) -> NewEvent:
    """Return the event of a delivery. Raise ``PayloadError`` if a value is missing."""
    filled = {key: _fill(value, body, headers) for key, value in mapping.items()}
    return NewEvent(**{"name": default, "data": body, **filled})


def _fill(value: Any, body: Any, headers: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _fill(item, body, headers) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_fill(item, body, headers) for item in value]
    if not isinstance(value, str):
        return value
    alone = _PART.fullmatch(value)
    if alone is not None:
        return _at(alone[1], body, headers)
    return _PART.sub(lambda part: _text(part[1], body, headers), value)


def _text(path: str, body: Any, headers: Mapping[str, str]) -> str:
    value = _at(path, body, headers)
    if isinstance(value, bool) or not isinstance(value, str | int):
        msg = f"The delivery has no string or number at {path}."
        raise PayloadError(msg)
    return str(value)


def _at(path: str, body: Any, headers: Mapping[str, str]) -> Any:
    root, *names = path.split(".")
    if root == "headers":
        return headers.get(names[0])
    value = body
    for name in names:
        if isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            value = value.get(name) if isinstance(value, dict) else None
    return value
