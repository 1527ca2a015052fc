"""Parse the time of a ``RetryAfterError``, in any form that services send."""

from __future__ import annotations

import logging
import re
import reprlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from durable_jobs import clock
from durable_jobs.control_flow import reraise_control
from durable_jobs.durations import parse_duration
from durable_jobs.error_text import storable_text
from durable_jobs.exceptions import ConfigurationError, RetryAfterError
from durable_jobs.retry import LONGEST_DELAY

logger = logging.getLogger("durable_jobs")

_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_LONGEST = 100


def moment_of(error: RetryAfterError) -> datetime | None:
    """Return when the next attempt is due.

    A time in the past is now. A later time than ``LONGEST_DELAY`` is cut to it. For an
    invalid time, log a warning and return None.
    """
    value: Any = None
    try:
        value = error.when
        now = clock.now()
        return now + min(max(_delay(value, now), timedelta(0)), LONGEST_DELAY)
    except BaseException as failure:  # noqa: BLE001  # the value may be of any class
        reraise_control(failure)
    logger.warning(
        "Expected a duration, a number of seconds, an HTTP date or an aware datetime "
        "in RetryAfterError, got %s: the backoff is used instead.",
        _display(value),
    )
    return None


def _delay(value: Any, now: datetime) -> timedelta:
    if isinstance(value, str):
        value = _parse(value.strip())
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            msg = "A naive datetime is ambiguous."
            raise ConfigurationError(msg)
        return value - now
    return parse_duration(value)


def _parse(text: str) -> Any:
    """Parse a string: return seconds, a time, or the string itself."""
    if len(text) > _LONGEST:
        msg = "The string is too long for a time."
        raise ConfigurationError(msg)
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError):
        return text
    # HTTP dates are in GMT, even if their zone is written as unknown (-0000).
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _display(value: Any) -> str:
    try:
        return storable_text(reprlib.repr(value), _LONGEST)
    except BaseException as failure:  # noqa: BLE001  # its class may raise anything
        reraise_control(failure)
        return f"an object of {type(value).__qualname__}"
