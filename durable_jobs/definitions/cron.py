"""Cron expressions in a time zone.

``cronsim`` parses the fields. This module decides what happens at a change to or from
daylight saving time:

* An expression that matches every hour (``*/15 * * * *``) is an interval in elapsed
  time. It fires in both repeated hours, and not in the missing hour.
* Any other expression names local times. A missing time fires once at the end of the
  gap. A repeated time fires the first time only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from durable_jobs.exceptions import ConfigurationError

_NAMES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_LONGEST = 200
#: Where the search for a first match starts when an expression is declared.
_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class CronExpression:
    """Five fields or a name such as ``@hourly``, in a zone such as ``Europe/Paris``.

    If day of month and day of week are both restricted, a match of either is enough.
    Raise ``ConfigurationError`` if the expression is invalid, has no matching time, or
    the zone is unknown.
    """

    text: str
    tz: str = "UTC"
    zone: ZoneInfo = field(init=False, repr=False, compare=False)
    fields: str = field(init=False, repr=False, compare=False)
    #: Whether every hour matches, so that elapsed time counts.
    is_interval: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = _fields(self.text)
        # A row stores the key of a ZoneInfo.
        object.__setattr__(self, "tz", getattr(self.tz, "key", self.tz))
        try:
            every_hour = len(CronSim(fields, _SOME_DAY).hours) == 24
            if every_hour:
                # With an hour of "*", cronsim counts elapsed time.
                fields = " ".join(
                    "*" if place == 1 else part
                    for place, part in enumerate(fields.split())
                )
            next(CronSim(fields, _SOME_DAY))
        except CronSimError as error:
            raise _invalid(self.text, str(error).lower()) from None
        except StopIteration:
            raise _invalid(self.text, "it has no matching time") from None
        object.__setattr__(self, "zone", _zone(self.tz))
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "is_interval", every_hour)

    def next_after(self, moment: datetime) -> datetime:
        """Return the first matching time in UTC after an aware moment."""
        if moment.tzinfo is None:
            raise ConfigurationError(
                f"The moment {moment} has no zone: expected an aware datetime."
            )
        local = moment.astimezone(self.zone)
        found = self._elapsed(local) if self.is_interval else self._named(local)
        for candidate in found:
            if candidate > moment:
                return candidate
        raise ConfigurationError(f"The cron {self.text!r} has no time after {moment}.")

    def latest(self, first: datetime, moment: datetime) -> datetime:
        """Return the last matching time up to a moment. ``first`` is a matching time.

        A binary search, so that a year of minutes takes no longer than a day of hours.
        """
        found, upcoming = first, self.next_after(first)
        too_late = moment
        while upcoming <= moment:
            found = upcoming
            middle = found + (too_late - found) / 2
            upcoming = self.next_after(middle)
            if upcoming > moment:
                too_late, upcoming = middle, self.next_after(found)
        return found

    def describe(self) -> str:
        """Return a description in English, or the expression if there is none."""
        try:
            words = CronSim(self.fields, _SOME_DAY).explain()
        except (CronSimError, ValueError, LookupError, AssertionError):
            return self.text
        return f"{words} ({self.tz})"

    def _elapsed(self, local: datetime) -> Iterator[datetime]:
        """Yield every instant at which the local time matches.

        Go through one UTC offset after the other, since cronsim assumes that a change
        is one hour. Lord Howe Island changes by half an hour.
        """
        moment, offset = local.astimezone(UTC), _offset(local)
        while True:
            start = (moment + offset).replace(tzinfo=None)
            for match in CronSim(self.fields, start):
                found = (match - offset).replace(tzinfo=UTC)
                if _offset(found.astimezone(self.zone)) != offset:
                    break
                moment = found
                yield found
            else:
                return
            change = self._change(moment + _SECOND, found)
            offset = _offset(change.astimezone(self.zone))
            moment = change - _SECOND  # the time of the change may match too

    def _change(self, before: datetime, after: datetime) -> datetime:
        """Return the instant, to the second, at which the offset of ``before`` ends.

        ``after`` is an instant with another offset.
        """
        offset = _offset(before.astimezone(self.zone))
        before = before.replace(microsecond=0)
        while after - before > _SECOND:
            middle = (before + (after - before) // 2).replace(microsecond=0)
            if _offset(middle.astimezone(self.zone)) == offset:
                before = middle
            else:
                after = middle
        return after

    def _named(self, local: datetime) -> Iterator[datetime]:
        for match in CronSim(self.fields, local.replace(tzinfo=None, fold=0)):
            yield self._instant(match)

    def _instant(self, wall: datetime) -> datetime:
        """Return when this local time first occurs, or the end of its gap."""
        local = wall.replace(tzinfo=self.zone)
        first = local.astimezone(UTC)
        if first.astimezone(self.zone).replace(tzinfo=None) == wall:
            return first
        # In a gap, fold 1 gives an instant before the change, and ``first`` is after
        # it.
        # The change lies between them.
        before, after = local.replace(fold=1).astimezone(UTC), first
        offset = after.astimezone(self.zone).utcoffset()
        while after - before > _SECOND:
            middle = before + (after - before) // 2
            middle = middle.replace(microsecond=0)
            if middle.astimezone(self.zone).utcoffset() == offset:
                after = middle
            else:
                before = middle
        return after


def _offset(local: datetime) -> timedelta:
    found = local.utcoffset()
    assert found is not None, "the callers' datetimes are aware"
    return found


@functools.lru_cache(maxsize=4096)
def expression(text: str, tz: str) -> CronExpression:
    """Return the parsed expression of a stored schedule, cached."""
    return CronExpression(text, tz)


def _fields(text: object) -> str:
    if not isinstance(text, str) or not text.isascii() or len(text) > _LONGEST:
        raise _invalid(
            text, f"it is not an ASCII string of at most {_LONGEST} characters"
        )
    parts = _NAMES.get(text.strip().lower(), text).split()
    if len(parts) != 5:
        raise _invalid(text, f"it has {len(parts)} fields")
    # cronsim treats a day field that begins with a star as unrestricted. Only "*" is
    # unrestricted: "*/2" is a range.
    parts[2] = _explicit_range(parts[2], "1-31")
    parts[4] = _explicit_range(parts[4], "0-6")
    return " ".join(parts)


def _explicit_range(part: str, everything: str) -> str:
    if part == "*/1":
        return "*"
    return re.sub(r"(?:(?<=,)|^)\*/", f"{everything}/", part)


def _zone(name: object) -> ZoneInfo:
    try:
        return ZoneInfo(str(name))
    except (LookupError, ValueError, OSError):
        raise ConfigurationError(
            f"The time zone is {name!r}: expected a name such as 'Europe/Paris'."
        ) from None


def _invalid(text: object, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The cron is {text!r} ({reason}): expected five fields (minute, hour, day of "
        f"month, month, day of week) or one of {', '.join(_NAMES)}."
    )
