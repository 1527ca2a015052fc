"""Cron expressions in a time zone.

``cronsim`` knows the fields; what happens when the clocks change is decided here:

* An expression for every hour (``*/15 * * * *``) is an interval. It goes by elapsed
  time: the hour that comes twice fires twice, the hour that is missing not at all.
* Any other names local times. One that is skipped fires at the end of the gap, once
  however many are skipped; one that comes twice fires the first time.
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
#: From here the first match is looked for when an expression is declared.
_SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class CronExpression:
    """Five fields or a name such as ``@hourly``, in a zone such as ``Europe/Paris``.

    Where day of month and day of week are both given, either is enough. Anything that
    is no such expression, never comes true, or is in no known zone is a
    ``ConfigurationError``.
    """

    text: str
    tz: str = "UTC"
    zone: ZoneInfo = field(init=False, repr=False, compare=False)
    fields: str = field(init=False, repr=False, compare=False)
    #: Whether it is for every hour, and so goes by elapsed time.
    is_interval: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        fields = _fields(self.text)
        # A ZoneInfo is known by its key, which is what a row can hold.
        object.__setattr__(self, "tz", getattr(self.tz, "key", self.tz))
        try:
            every_hour = len(CronSim(fields, _SOME_DAY).hours) == 24
            if every_hour:
                # An hour of "*" is how cronsim is told to go by elapsed time.
                fields = " ".join(
                    "*" if place == 1 else part
                    for place, part in enumerate(fields.split())
                )
            next(CronSim(fields, _SOME_DAY))
        except CronSimError as error:
            raise _refused(self.text, str(error).lower()) from None
        except StopIteration:
            raise _refused(self.text, "it never comes true") from None
        object.__setattr__(self, "zone", _zone(self.tz))
        object.__setattr__(self, "fields", fields)
        object.__setattr__(self, "is_interval", every_hour)

    def next_after(self, moment: datetime) -> datetime:
        """Give the first time in UTC that is later than an aware moment."""
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
        """Give the last of its times up to a moment; ``first`` is one of them.

        By halving, so that a year of minutes takes no longer than a day of hours.
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
        """Say in English when it fires, or give the text where that is hard to say."""
        try:
            words = CronSim(self.fields, _SOME_DAY).explain()
        except (CronSimError, ValueError, LookupError, AssertionError):
            return self.text
        return f"{words} ({self.tz})"

    def _elapsed(self, local: datetime) -> Iterator[datetime]:
        """Give every instant at which the clocks show one of the times.

        By one offset after the other: cronsim takes a change by half an hour, as Lord
        Howe Island has it, for one by an hour.
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
            moment = change - _SECOND  # a time at the change itself is one of them

    def _change(self, before: datetime, after: datetime) -> datetime:
        """Give the instant, to the second, at which an offset ends that holds before.

        ``after`` is an instant with another one.
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
        """Give when the clocks first show this time, or the end of the gap it is in."""
        local = wall.replace(tzinfo=self.zone)
        first = local.astimezone(UTC)
        if first.astimezone(self.zone).replace(tzinfo=None) == wall:
            return first
        # In a gap, fold 1 is the same wall time by the later offset, so an instant
        # before the change; ``first`` is after it. The change lies between them.
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
    """Return the expression of a stored schedule, read once."""
    return CronExpression(text, tz)


def _fields(text: object) -> str:
    if not isinstance(text, str) or not text.isascii() or len(text) > _LONGEST:
        raise _refused(text, "it is no short text")
    parts = _NAMES.get(text.strip().lower(), text).split()
    if len(parts) != 5:
        raise _refused(text, f"it has {len(parts)} fields")
    # To cronsim a day field that begins with a star is one that was not given. Only a
    # whole star is: "*/2" is a range like others.
    parts[2] = _spelled_out(parts[2], "1-31")
    parts[4] = _spelled_out(parts[4], "0-6")
    return " ".join(parts)


def _spelled_out(part: str, everything: str) -> str:
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


def _refused(text: object, reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"The cron is {text!r} ({reason}): expected five fields (minute, hour, day of "
        f"month, month, day of week) or one of {', '.join(_NAMES)}."
    )
