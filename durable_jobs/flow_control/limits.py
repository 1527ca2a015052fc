"""How much a limit lets through: declared, set by an operator, or asked of the host.

A limit that is a callable may query the host's tables, and fail. So it is never called
inside an admission: what is not known is noted there, asked for after it, and
remembered for ten seconds in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import DatabaseError

from durable_jobs import clock
from durable_jobs.control_flow import let_pass
from durable_jobs.error_text import summary_of
from durable_jobs.flow_control.keys import KeyedLimit
from durable_jobs.models import Limit
from durable_jobs.store.connection_state import restored

logger = logging.getLogger("durable_jobs")

#: How long the answer of a limit's callable is good.
REMEMBERED = timedelta(seconds=10)
#: How many answers a process remembers.
MOST = 10_000


@dataclass(frozen=True, slots=True)
class LimitValue:
    """What a callable gave: a limit, or with ``trouble`` the last one that was good."""

    limit: int | None
    at: datetime
    error: str = ""


_answers: dict[tuple[str, str, str], LimitValue] = {}


def cached_limit(keyed_limit: KeyedLimit, limit_row: Limit) -> LimitValue | None:
    """Return the limit of a limit; None when its callable has to be asked first."""
    declared = keyed_limit.limit
    if declared is None:
        return LimitValue(
            1, clock.now()
        )  # one live run is what it is, for operators too
    if limit_row.override is not None:
        return LimitValue(limit_row.override, clock.now())
    if not callable(declared):
        return LimitValue(declared, clock.now())
    found = _answers.get(_place(keyed_limit))
    if found is None or not found.at <= clock.now() < found.at + REMEMBERED:
        return None
    return found


def evaluate(keyed_limit: KeyedLimit) -> tuple[LimitValue, bool]:
    """Ask for a limit, outside of any admission; tell whether it has grown.

    A callable that raises, or gives anything but a whole number of 0 or more, leaves
    the limit as it was last; where it never was, nothing starts.
    """
    place = _place(keyed_limit)
    before = _answers.get(place)
    last = before.limit if before is not None else None
    try:
        answer = LimitValue(_checked(keyed_limit), clock.now())
    except BaseException as error:  # it is your project's code
        let_pass(error)
        if issubclass(type(error), DatabaseError):
            logger.debug("A limit's query failed.", exc_info=True)
        trouble = summary_of(error, 500)
        answer = LimitValue(last, clock.now(), trouble)
        logger.warning(
            "The limit of %s of %s for key %s is not known, and %s: %s",
            keyed_limit.place,
            keyed_limit.function.id,
            keyed_limit.text,
            "nothing starts" if last is None else f"stays {last}",
            trouble,
        )
    if len(_answers) >= MOST:
        _answers.clear()
    _answers[place] = answer
    grown = answer.limit is not None and answer.limit > (last or 0)
    return answer, grown


def forget() -> None:
    """Forget all answers."""
    _answers.clear()


def _checked(keyed_limit: KeyedLimit) -> int:
    declared = keyed_limit.limit
    limit = _called(keyed_limit, declared) if callable(declared) else declared
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 0:
        msg = f"expected a whole number of 0 or more, got {limit!r:.80}"
        raise ValueError(msg)
    return limit


def _called(keyed_limit: KeyedLimit, limit: Callable[[Any], int]) -> int:
    """Call a limit; raise if it leaves open a transaction that claims would be in."""
    with restored(f"The limit {keyed_limit.place} of {keyed_limit.function.id}"):
        return limit(keyed_limit.key)


def _place(keyed_limit: KeyedLimit) -> tuple[str, str, str]:
    return keyed_limit.function.id, keyed_limit.place, keyed_limit.text
