"""Functions that this process does not have. Its claims exclude their runs.

A claim takes runs of any function. A run of an unknown function is released at once
without counting the claim. Then the claims of this process exclude the function for a
while. A process that has all functions pays nothing.
"""

from __future__ import annotations

from durable_jobs import clock
from durable_jobs.definitions.registry import registry

#: Seconds for which claims exclude an unknown function.
EXCLUDED_FOR = 60.0

_until: dict[str, float] = {}


def exclude(function: str) -> None:
    """Exclude a function from the next claims of this process."""
    _until[function] = clock.monotonic() + EXCLUDED_FOR


def excluded() -> list[str]:
    """Return the functions that claims exclude."""
    if not _until:
        return []
    now = clock.monotonic()
    for name, until in list(_until.items()):
        if until <= now or registry.find(name) is not None:
            _until.pop(name, None)
    return sorted(_until)


def clear() -> None:
    """Exclude no function any more."""
    _until.clear()
