"""Isolate the errors of single items in loops over many items.

A sweep, a claim or the router processes each item with ``guarded``. An error is logged
and recorded in the table of sweep errors, which the admin shows. The item is retried
after a pause that grows with each failure, and the loop continues. An outage of the
database ends the loop, because it is not an error of the item.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from django.db.models import F

from durable_jobs import clock
from durable_jobs.error_text import loggable, summary_of
from durable_jobs.models import SweepError
from durable_jobs.store import db

logger = logging.getLogger("durable_jobs")

T = TypeVar("T")

FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
#: An error that has not recurred for this time after its next try is resolved.
SETTLED = timedelta(minutes=1)

#: How many items without a due time of their own are remembered as postponed.
MOST_POSTPONED = 1000

#: The next try of items without a due time of their own, by kind and item.
_retry_times: dict[tuple[str, str], datetime] = {}


def guarded(
    kind: str,
    item: object,
    work: Callable[[], object],
    *,
    postpone: Callable[[datetime], object] | None = None,
    run_id: uuid.UUID | None = None,
    pauses: bool = True,
) -> bool:
    """Do the work on one item; return whether it succeeded.

    After an error, ``postpone`` is called with the time of the next try and must delay
    the item. Without ``postpone``, this process skips the item until then. With
    ``pauses=False``, the item represents many others and is tried again without a
    pause. Raise only if the database is unreachable.
    """
    key = kind, str(item)
    if postpone is None and key in _retry_times and _retry_times[key] > clock.now():
        return False
    try:
        work()
    except Exception as error:
        if db.is_outage(error):
            raise
        later = postpone if pauses else _at_once
        record_failure(kind, item, error, postpone=later, run_id=run_id)
        return False
    if postpone is None and _retry_times.pop(key, None) is not None:
        clear_error(kind, item)
    return True


def _at_once(until: datetime) -> None:
    """Retry without a pause."""


def guarded_batch(
    kind: str, items: Sequence[T], together: Callable[[Sequence[T]], object]
) -> int:
    """Do the work on many items at once, or one by one if that fails.

    Return the number of processed items.
    """
    chosen = [item for item in items if _retry_times.get((kind, str(item))) is None]
    try:
        if chosen:
            together(chosen)
        done = len(chosen)
    except Exception as error:
        if db.is_outage(error):
            raise
        logger.exception("A batch of %s failed. Each item is tried separately.", kind)
        done = sum(_guarded_item(kind, item, together) for item in chosen)
    failed_before = [item for item in items if item not in chosen]
    return done + sum(_guarded_item(kind, item, together) for item in failed_before)


def _guarded_item(
    kind: str, item: T, together: Callable[[Sequence[T]], object]
) -> bool:
    return guarded(kind, item, lambda: together([item]))


def postponed(kind: str) -> set[str]:
    """Return the items of a kind that this process does not retry yet."""
    now = clock.now()
    return {item for (of, item), at in _retry_times.items() if of == kind and at > now}


def clear() -> None:
    """Forget the postponed items of this process."""
    _retry_times.clear()


def record_failure(
    kind: str,
    item: object,
    error: Exception,
    *,
    postpone: Callable[[datetime], object] | None = None,
    run_id: uuid.UUID | None = None,
) -> None:
    """Log and record an error of one item, and postpone the item."""
    about = f"{kind} {item}" if run_id is None else f"{kind} {item} of run {run_id}"
    logger.error(
        "Processing %s failed. It is retried later.", about, exc_info=loggable(error)
    )
    try:
        until = save(kind, str(item), error, run_id)
        if postpone is None:
            _postpone(kind, str(item), until)
        else:
            postpone(until)
    except Exception as second:
        if db.is_outage(second):
            raise
        logger.exception("Could not postpone %s.", about)


def _postpone(kind: str, item: str, until: datetime) -> None:
    """Remember the next try of an item, and forget items that may be deleted."""
    if len(_retry_times) >= MOST_POSTPONED:
        now = clock.now()
        for key in [key for key, due in _retry_times.items() if due <= now]:
            _retry_times.pop(key, None)
    while len(_retry_times) >= MOST_POSTPONED:
        _retry_times.pop(min(_retry_times, key=_retry_times.__getitem__), None)
    _retry_times[kind, item] = until


def pause_after(count: int) -> timedelta:
    """Return the pause after ``count`` failures in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(max(count - 1, 0), 20)))


def save(
    kind: str, item: str, error: Exception, run_id: uuid.UUID | None = None
) -> datetime:
    """Record an error for the admin; return the time of the next try."""
    now = clock.now()
    message = summary_of(error)
    rows = db.rows(SweepError)
    known = rows.filter(kind=kind, item=item[:255])
    last = known.values_list("count", "until").first()
    # A resolved error is counted from the start again.
    count = 0 if last is None or last[1] + SETTLED < now else last[0]
    until = now + pause_after(count + 1)
    new = SweepError(
        kind=kind,
        item=item[:255],
        run_id=run_id,
        message=message,
        count=1,
        since=now,
        last_at=now,
        until=until,
    )
    if last is None:
        rows.bulk_create([new], ignore_conflicts=True)
    else:
        counts = {"count": F("count") + 1} if count else {"since": now, "count": 1}
        known.update(message=message, last_at=now, until=until, **counts)
    return until


def clear_error(kind: str, item: object) -> None:
    """Delete the error of an item that has succeeded."""
    rows = db.rows(SweepError)
    rows.filter(kind=kind, item=str(item)[:255]).delete()
