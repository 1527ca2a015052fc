"""Rate arithmetic without rows: throttles and exact windows."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from datetime import datetime, timedelta


def conform(
    tat: datetime | None, now: datetime, interval: timedelta, burst: int
) -> tuple[datetime, datetime]:
    """Return when the next start conforms, and the arrival time after it.

    This is the generic cell rate algorithm (ITU-T I.371) as a virtual schedule. ``tat``
    is the theoretical arrival time. One start is due per ``interval``, and ``burst``
    starts may come at once.
    """
    expected = now if tat is None else max(tat, now)
    earliest = expected - interval * (burst - 1)
    start = max(earliest, now)
    return start, expected + interval


def capped_tat(
    tat: datetime | None, now: datetime, interval: timedelta, burst: int
) -> datetime | None:
    """Return ``tat``, limited to what the current rate allows.

    A later ``tat`` is from before the rate was raised.
    """
    return None if tat is None else min(tat, now + interval * burst)


def room_in_window(
    starts: Sequence[datetime], at: datetime, limit: int, per: timedelta
) -> datetime | None:
    """Return None if a start at ``at`` fits, or the time at which one would fit.

    ``starts`` are the accepted starts, in order; of two that commit at the same time,
    the later one may come first. No window of length ``per`` (without its beginning)
    ever has more than ``limit`` starts.
    """
    if limit < 1:
        return at + per
    position = bisect_right(starts, at)
    merged = [*starts[:position], at, *starts[position:]]
    for first in range(max(0, position - limit), position + 1):
        last = first + limit
        if last < len(merged) and merged[last] - merged[first] < per:
            return max(starts[-limit] + per, at)
    return None
