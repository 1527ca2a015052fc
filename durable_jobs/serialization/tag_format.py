"""The format of tags, and how deep a stored value may be nested."""

from __future__ import annotations

import re
from typing import Any

from durable_jobs.exceptions import PayloadError

TAG = "$durable"
VALUE = "value"

#: The most levels of nested lists, dicts and other containers.
DEEPEST = 100
#: Further levels that the engine may wrap around an accepted value.
WRAPPER_LEVELS = 100


#: A tag in JSON text. Inside a string, a backslash would come before the quotes.
_IN_TEXT = re.compile(r'"\$durable"\s*:\s*"([^"\\]*)"')


class UnknownTag(PayloadError):
    """A stored value has a tag that only a newer version of this package writes."""


def tag(kind: str, value: Any) -> dict[str, Any]:
    """Return a tree wrapped in a tag."""
    return {TAG: kind, VALUE: value}


def tags_in(text: str) -> set[str]:
    """Return the kinds of the tags in JSON text."""
    return set(_IN_TEXT.findall(text)) if TAG in text else set()


def has_tags(tree: Any) -> bool:
    """Return whether a tree contains a tag."""
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
