"""What a live page lacks: the lines of a timeline that changed since it was drawn.

The page sends a reference and a version for each of its lines. The response holds the
lines with another version, each with the line before it, and the references of lines
that are gone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

#: The reference of the function's own line, which every timeline has first.
FUNCTION = "function"
#: The reference of the table of child runs, which is sent as a whole.
CHILDREN = "children"
_KNOWN = re.compile(r"([a-z0-9]{1,20})\.([0-9a-f]{8})")
_SEPARATOR, _MOST_KNOWN = "~", 500


class VersionedLine(Protocol):
    """A line with a reference, and a version that changes with its content."""

    @property
    def ref(self) -> str: ...
    @property
    def version(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChange:
    """A line to replace, or lines to insert after the line ``after``."""

    lines: list[VersionedLine]
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineUpdate:
    """The changes of a timeline since a page was drawn."""

    known: dict[str, str]
    changes: list[LineChange]
    removed: list[str]


def version_of(*facts: Any) -> str:
    """Return a short hash of what a line shows."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def parse(text: str) -> dict[str, str]:
    """Return the versions of the lines that a page has, by reference."""
    entries = text.split(_SEPARATOR)[:_MOST_KNOWN]
    found = (_KNOWN.fullmatch(entry) for entry in entries)
    return {match[1]: match[2] for match in found if match}


def update(
    lines: Sequence[VersionedLine], known: Mapping[str, str]
) -> TimelineUpdate | None:
    """Return the changes, or None if the page needs all lines again."""
    refs = [line.ref for line in lines]
    kept = set(refs) & known.keys()
    in_order = [ref for ref in known if ref in kept]
    if FUNCTION not in kept or in_order != [ref for ref in refs if ref in kept]:
        return None
    changes: list[LineChange] = []
    previous, new = "", None
    for line in lines:
        if line.ref in known:
            new = None
            if known[line.ref] != line.version:
                changes.append(LineChange(lines=[line]))
        elif new is None:
            new = LineChange(lines=[line], after=previous)
            changes.append(new)
        else:
            new.lines.append(line)
        previous = line.ref
    removed = [ref for ref in known if ref not in kept and ref != CHILDREN]
    return TimelineUpdate(known=dict(known), changes=changes, removed=removed)
