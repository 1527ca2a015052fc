"""The form of a tag."""

from __future__ import annotations

from typing import Any

TAG = "$durable"
VALUE = "value"

#: Levels of lists, dicts and their like inside one another.
DEEPEST = 100
#: Further levels that the engine may put around a value that it has accepted.
OWN_LEVELS = 100


def tag(kind: str, value: Any) -> dict[str, Any]:
    """Write a tag around a tree."""
    return {TAG: kind, VALUE: value}


def has_tags(tree: Any) -> bool:
    """Return whether there is anything like a tag in a tree."""
    levels = [tree]
    while levels:
        level = levels.pop()
        if type(level) is dict:
            if TAG in level:
                return True
            levels.extend(level.values())
        elif type(level) is list:
            levels.extend(level)
    return False
