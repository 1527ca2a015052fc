"""The time that a ``RetryAfterError`` names, in any of the forms that services send."""

from __future__ import annotations

import logging
import re
import reprlib
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from durable_jobs import clock
from durable_jobs.control_flow import let_pass
from durable_jobs.durations import parse_duration
from durable_jobs.error_text import storable_text
from durable_jobs.exceptions import ConfigurationError, RetryAfterError
from durable_jobs.retry import LONGEST_DELAY

logger = logging.getLogger("durable_jobs")

_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_LONGEST = 100


def moment_of(error: RetryAfterError) -> datetime | None:
    """Return when the next attempt is due; None, and a warning, for no valid time.

    A time in the past is now. One further off than ``LONGEST_DELAY`` is cut to it.
    """
    value: Any = None
    try:
        value = error.when
        now = clock.now()
        return now + min(max(_delay(value, now), timedelta(0)), LONGEST_DELAY)
    except BaseException as failure:  # noqa: BLE001  # the value may be of any class
        let_pass(failure)
    logger.warning(
        "Expected a duration, a number of seconds, an HTTP date or an aware datetime "
        "in RetryAfterError, got %s: the backoff decides.",
        _shown(value),
    )
    return None


def _delay(value: Any, now: datetime) -> timedelta:
    if isinstance(value, str):
        value = _read(value.strip())
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            msg = "A naive datetime is no moment."
            raise ConfigurationError(msg)
        return value - now
    return parse_duration(value)


def _read(text: str) -> Any:
    """Return what a text stands for: seconds, a moment, or itself."""
    if len(text) > _LONGEST:
        msg = "The text is too long for a time."
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
    # An HTTP date is in GMT, also where it is written as a zone that is not known.
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _shown(value: Any) -> str:
    try:
        return storable_text(reprlib.repr(value), _LONGEST)
    except BaseException as failure:  # noqa: BLE001  # its class may raise anything
        let_pass(failure)
        return f"an object of {type(value).__qualname__}"
