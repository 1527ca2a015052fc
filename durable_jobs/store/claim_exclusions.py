"""What the claims of this process exclude: unknown functions, and single runs.

A claim takes runs of any function. A run of an unknown function is released at once
without counting the claim. Then the claims of this process exclude the function for a
while. A process that has all functions has no extra cost.

A run that needs a newer version of this package is excluded by itself. If there are
many of these, the claims exclude their functions.
"""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from durable_jobs import clock
from durable_jobs.definitions.registry import registry

#: Seconds for which claims exclude an unknown function or a run.
EXCLUDED_FOR = 60.0
#: How many runs are excluded one by one.
MOST_RUNS = 100

_functions_until: dict[str, float] = {}
#: Runs that need a newer version, and functions with too many of them.
_runs_until: dict[uuid.UUID, datetime] = {}
_crowded_until: dict[str, datetime] = {}


def exclude_function(function: str) -> None:
    """Exclude a function from the next claims of this process."""
    _functions_until[function] = clock.monotonic() + EXCLUDED_FOR


def exclude_run(run_id: uuid.UUID, function: str) -> None:
    """Exclude a run from the next claims of this process, or its function."""
    until = clock.now() + timedelta(seconds=EXCLUDED_FOR)
    if run_id in _runs_until or len(excluded_runs()) < MOST_RUNS:
        _runs_until[run_id] = until
    else:
        _crowded_until[function] = until


def excluded_functions() -> list[str]:
    """Return the functions that claims exclude."""
    if not _functions_until and not _crowded_until:
        return []
    elapsed, now = clock.monotonic(), clock.now()
    for name, until in list(_functions_until.items()):
        if until <= elapsed or registry.find(name) is not None:
            _functions_until.pop(name, None)
    for name, ends in list(_crowded_until.items()):
        if ends <= now:
            _crowded_until.pop(name, None)
    return sorted({*_functions_until, *_crowded_until})


def excluded_runs() -> list[uuid.UUID]:
    """Return the runs that claims exclude."""
    if not _runs_until:
        return []
    now = clock.now()
    for run_id, until in list(_runs_until.items()):
        if until <= now:
            _runs_until.pop(run_id, None)
    return sorted(_runs_until)


def clear() -> None:
    """Exclude nothing any more."""
    _functions_until.clear()
    _runs_until.clear()
    _crowded_until.clear()
