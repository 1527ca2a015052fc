"""Functions that this process does not have: its claims leave their runs to others.

A claim asks for any run at first. A run of an unknown function goes back at once,
uncounted, and for a while the claims of this process pass over that function. So a
process whose code has all the functions pays nothing.
"""

from __future__ import annotations

from durable_jobs import clock
from durable_jobs.definitions.registry import registry

#: Seconds until a claim asks for the runs of an unknown function again.
REMEMBERED = 60.0

_until: dict[str, float] = {}


def exclude(function: str) -> None:
    """Let the next claims of this process pass over a function."""
    _until[function] = clock.monotonic() + REMEMBERED


def excluded() -> list[str]:
    """Return the functions that claims pass over; mostly there are none."""
    if not _until:
        return []
    now = clock.monotonic()
    for name, until in list(_until.items()):
        if until <= now or registry.find(name) is not None:
            _until.pop(name, None)
    return sorted(_until)


def clear() -> None:
    """Ask for the runs of all functions again."""
    _until.clear()
