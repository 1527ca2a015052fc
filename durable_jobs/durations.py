"""Durations: a ``timedelta``, a number of seconds, or a string.

A string has one or more numbers, each with a unit, the largest unit first: ``"300ms"``,
``"1.5h"``, ``"2h45m"``.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from fractions import Fraction
from typing import Any

from durable_jobs.exceptions import ConfigurationError

Duration = timedelta | int | float | str

_MICROSECONDS = {
    "w": 7 * 86_400_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
}
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_TEXT = re.compile(
    "".join(rf"(?:({_NUMBER}){unit}(?![a-z]))?" for unit in _MICROSECONDS)
)
_LONGEST_TEXT = 64


def parse_duration(value: Any, *, what: str = "duration") -> timedelta:
    """Return a duration as a ``timedelta``, exact to the microsecond.

    ``value`` is a ``timedelta``, a number of seconds, or a string in the units w, d, h,
    m, s and ms. Raise ``ConfigurationError``, naming ``what``, for other values and for
    negative durations. Zero is valid.
    """
    if isinstance(value, timedelta):
        result = value
    elif isinstance(value, bool):
        raise _invalid(value, what)
    elif isinstance(value, int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise _invalid(value, what)
        result = _seconds(value, what)
    elif isinstance(value, str):
        result = _text(value, what)
    else:
        raise _invalid(value, what)
    if result < timedelta(0):
        raise ConfigurationError(
            f"{_sentence(what)} is {value!r}: expected zero or more."
        )
    return result


def format_duration(value: timedelta) -> str:
    """Return a ``timedelta`` as a short string that ``parse_duration`` reads back.

    A negative value, which is not a valid duration, gets a minus sign.
    """
    left = value // timedelta(microseconds=1)
    if left < 0:
        return "-" + format_duration(-value)
    if left and left % _MICROSECONDS["w"] == 0:
        return f"{left // _MICROSECONDS['w']}w"
    parts = []
    for unit in ("d", "h", "m"):
        count, left = divmod(left, _MICROSECONDS[unit])
        if count:
            parts.append(f"{count}{unit}")
    if left and not parts and left < _MICROSECONDS["s"]:
        parts.append(f"{_decimal(left, 3)}ms")
    elif left or not parts:
        parts.append(f"{_decimal(left, 6)}s")
    return "".join(parts)


def _decimal(count: int, places: int) -> str:
    whole, rest = divmod(count, 10**places)
    return f"{whole}.{rest:0{places}d}".rstrip("0") if rest else str(whole)


def _seconds(value: int | float, what: str) -> timedelta:
    try:
        return timedelta(seconds=value)
    except OverflowError:
        raise _too_long(what) from None


def _text(value: str, what: str) -> timedelta:
    found = _TEXT.fullmatch(value) if len(value) <= _LONGEST_TEXT else None
    if not value or found is None:
        raise _invalid(value, what)
    total = sum(
        Fraction(number) * size
        for number, size in zip(found.groups(), _MICROSECONDS.values(), strict=True)
        if number is not None
    )
    try:
        return timedelta(microseconds=round(total))
    except OverflowError:
        raise _too_long(what) from None


def _sentence(what: str) -> str:
    """Return the beginning of a sentence: a noun with its article."""
    return f"T{what[1:]}" if what.startswith("the ") else f"The {what}"


def _invalid(value: Any, what: str) -> ConfigurationError:
    shown = repr(value)
    if len(shown) > _LONGEST_TEXT:
        shown = shown[:_LONGEST_TEXT] + "…"
    return ConfigurationError(
        f"{_sentence(what)} is {shown}: expected a timedelta, a number of seconds, or "
        "a string in w, d, h, m, s and ms, the largest first, such as '2h45m'."
    )


def _too_long(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{_sentence(what)} is longer than a timedelta can hold: expected at most "
        f"{timedelta.max.days} days."
    )
