"""The keys by which conditions find their events."""

from __future__ import annotations

from typing import Any

from durable_jobs.expressions.equalities import equalities
from durable_jobs.serialization.match_keys import equal_key


def key_of(condition: str, data: Any) -> str:
    """Return the key by which a condition finds its events; empty when it has none.

    ``data`` is the run's.
    """
    for own, path in equalities(condition, "event", "async"):
        key = equal_key(own, path, {"data": data})
        if key:
            return key
    return ""
