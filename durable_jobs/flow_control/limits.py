"""The value of a limit: declared, overridden by an operator, or from a callable.

A callable of your project may query its tables and fail. So an admission never calls
it: the admission records which values are missing, and they are evaluated afterwards.
Each process caches a value for ten seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError

from durable_jobs import clock
from durable_jobs.control_flow import reraise_control
from durable_jobs.error_text import summary_of
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.models import Limit
from durable_jobs.store.connection_state import restored

logger = logging.getLogger("durable_jobs")

#: How long the value of a callable is cached.
CACHED_FOR = timedelta(seconds=10)
#: How many values a process caches.
MAX_CACHED = 10_000


@dataclass(frozen=True, slots=True)
class LimitValue:
    """The value of a limit; with ``error``, the last valid one."""

    limit: int | None
    at: datetime
    error: str = ""


_cached: dict[tuple[str, str, str], LimitValue] = {}


def cached_limit(keyed_limit: KeyedLimit, limit_row: Limit) -> LimitValue | None:
    """Return the value of a limit, or None if its callable has to be called first."""
    declared = keyed_limit.limit
    if declared is None:
        return LimitValue(1, clock.now())  # a singleton: operators cannot override it
    if limit_row.override is not None:
        return LimitValue(limit_row.override, clock.now())
    if not callable(declared):
        return LimitValue(declared, clock.now())
    found = _cached.get(_cache_key(keyed_limit))
    if found is None or not found.at <= clock.now() < found.at + CACHED_FOR:
        return None
    return found


def evaluate(keyed_limit: KeyedLimit) -> tuple[LimitValue, bool]:
    """Call a limit's callable, outside of admissions; return the value.

    Return also whether the value has grown. If the callable raises, or returns anything
    but a whole number of 0 or more, the last value stays. Without a last value, nothing
    starts.
    """
    cache_key = _cache_key(keyed_limit)
    before = _cached.get(cache_key)
    last = before.limit if before is not None else None
    try:
        value = LimitValue(_checked(keyed_limit), clock.now())
    except BaseException as error:  # it is your project's code
        reraise_control(error)
        if issubclass(type(error), DatabaseError):
            logger.debug("A limit's query failed.", exc_info=True)
        message = summary_of(error, 500)
        value = LimitValue(last, clock.now(), message)
        logger.warning(
            "The limit of %s of %s for key %s is not known, and %s: %s",
            keyed_limit.declaration,
            keyed_limit.function.id,
            keyed_limit.text,
            "nothing starts" if last is None else f"stays {last}",
            message,
        )
    if len(_cached) >= MAX_CACHED:
        _cached.clear()
    _cached[cache_key] = value
    grown = value.limit is not None and value.limit > (last or 0)
    return value, grown


def forget() -> None:
    """Clear the cache."""
    _cached.clear()


def _checked(keyed_limit: KeyedLimit) -> int:
    declared = keyed_limit.limit
    limit = _called(keyed_limit, declared) if callable(declared) else declared
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        msg = f"expected a whole number of 0 or more, got {limit!r:.80}"
        raise ValueError(msg)
    return limit


def _called(keyed_limit: KeyedLimit, limit: Callable[[Any], int]) -> int:
    """Call a limit; raise if it leaves a transaction open."""
    with restored(f"The limit {keyed_limit.declaration} of {keyed_limit.function.id}"):
        return limit(keyed_limit.key)


def _cache_key(keyed_limit: KeyedLimit) -> tuple[str, str, str]:
    return keyed_limit.function.id, keyed_limit.declaration, keyed_limit.text
