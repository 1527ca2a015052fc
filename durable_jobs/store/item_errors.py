"""One item's error ends no loop over many: it is logged, kept, and tried again later.

A sweep, a claim or a router takes each item through ``guarded``. An error is written to
the log with what it is about, and to the table of sweep errors, where a person sees it.
The item is put off for a pause that grows with each failure, and the loop goes on. An
outage of the runs' own database is no item's error: it ends the loop.
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
#: An error that was not seen again for so long after its next try is over.
SETTLED = timedelta(minutes=1)

#: When this process tries again what has no due time of its own, by kind and item.
_later: dict[tuple[str, str], datetime] = {}


def guarded(
    kind: str,
    item: object,
    work: Callable[[], object],
    *,
    put_off: Callable[[datetime], object] | None = None,
    run_id: uuid.UUID | None = None,
    pauses: bool = True,
) -> bool:
    """Do the work on one item; return whether it succeeded.

    ``put_off`` is called with the time of the next try, and lets the item be due then.
    Without it, this process leaves the item out until then, wherever it is guarded
    without ``put_off``. ``pauses=False``: the item stands for many others, and is tried
    again the next time. Raise only what an outage of the runs' own database raises.
    """
    key = kind, str(item)
    if put_off is None and key in _later and _later[key] > clock.now():
        return False
    try:
        work()
    except Exception as error:
        if db.is_outage(error):
            raise
        later = put_off if pauses else _at_once
        record_failure(kind, item, error, put_off=later, run_id=run_id)
        return False
    if put_off is None and _later.pop(key, None) is not None:
        clear_error(kind, item)
    return True


def _at_once(until: datetime) -> None:
    """Put nothing off."""


def guarded_batch(
    kind: str, items: Sequence[T], together: Callable[[Sequence[T]], object]
) -> int:
    """Do the work on many items at once, or one by one if that fails; count them."""
    chosen = [item for item in items if _later.get((kind, str(item))) is None]
    try:
        if chosen:
            together(chosen)
        done = len(chosen)
    except Exception as error:
        if db.is_outage(error):
            raise
        logger.exception("A batch of %s failed: each is tried by itself.", kind)
        done = sum(_alone(kind, item, together) for item in chosen)
    failed_before = [item for item in items if item not in chosen]
    return done + sum(_alone(kind, item, together) for item in failed_before)


def _alone(kind: str, item: T, together: Callable[[Sequence[T]], object]) -> bool:
    return guarded(kind, item, lambda: together([item]))


def postponed(kind: str) -> set[str]:
    """Return the items of a kind that this process is not to try yet."""
    now = clock.now()
    return {item for (of, item), at in _later.items() if of == kind and at > now}


def clear() -> None:
    """Forget what this process has put off."""
    _later.clear()


def record_failure(
    kind: str,
    item: object,
    error: Exception,
    *,
    put_off: Callable[[datetime], object] | None = None,
    run_id: uuid.UUID | None = None,
) -> None:
    """Log and keep an error of one item, and put the item off."""
    about = f"{kind} {item}" if run_id is None else f"{kind} {item} of run {run_id}"
    logger.error(
        "Failed at %s; it is tried again later.", about, exc_info=loggable(error)
    )
    try:
        until = save(kind, str(item), error, run_id)
        if put_off is None:
            _later[kind, str(item)] = until
        else:
            put_off(until)
    except Exception as second:
        if db.is_outage(second):
            raise
        logger.exception("Could not put off %s.", about)


def pause_after(count: int) -> timedelta:
    """Return how long an item waits that has failed ``count`` times in a row."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(max(count - 1, 0), 20)))


def save(
    kind: str, item: str, error: Exception, run_id: uuid.UUID | None = None
) -> datetime:
    """Keep an error where a person sees it; return when the item is tried again."""
    now = clock.now()
    message = summary_of(error)
    rows = db.rows(SweepError)
    known = rows.filter(kind=kind, item=item[:255])
    last = known.values_list("count", "until").first()
    # One that was settled begins anew.
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
        anew = {"since": now, "count": 1} if not count else {"count": F("count") + 1}
        known.update(message=message, last_at=now, until=until, **anew)
    return until


def clear_error(kind: str, item: object) -> None:
    """Forget the error of an item that has succeeded."""
    rows = db.rows(SweepError)
    rows.filter(kind=kind, item=str(item)[:255]).delete()
