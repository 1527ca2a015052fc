"""The match keys of conditions, by which the router finds waits."""

from __future__ import annotations

from typing import Any

from durable_jobs.expressions.equalities import equalities
from durable_jobs.serialization.match_keys import equal_key


def key_of(condition: str, data: Any) -> str:
    """Return the match key of a condition; empty if it has none.

    ``data`` is the data of the run.
    """
    for run_path, path in equalities(condition, "event", "async"):
        key = equal_key(run_path, path, {"data": data})
        if key:
            return key
    return ""
