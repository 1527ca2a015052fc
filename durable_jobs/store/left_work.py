"""Work that a process leaves to others, since its code or its release lacks something.

During a rolling deploy, an old worker may end a run whose handler only new code has. It
may meet a step or a value that only a later release can read. Such work is kept as a
row of the table of sweep errors, with a kind of its own, until a process can do it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q, QuerySet

from durable_jobs import clock
from durable_jobs.models import Run, SweepError
from durable_jobs.statuses import LIVE, TERMINAL, RunStatus
from durable_jobs.store import db

#: The handler of an ended run is to be started.
HANDLER = "handler"
#: An event may cancel a run.
CANCELLATION = "cancellation"
#: A run needs a later release of this package.
LATER_RELEASE = "later release"
KINDS = frozenset({HANDLER, CANCELLATION, LATER_RELEASE})

#: A run that no process has left for so long was taken by one that can execute it.
SEEN = timedelta(minutes=3)


def rows() -> QuerySet[SweepError]:
    """Return all that was left."""
    return db.rows(SweepError).filter(kind__in=sorted(KINDS))


def leave_handler(run: Run) -> None:
    """Leave the start of a handler, in the transaction that ends the run."""
    _leave(HANDLER, str(run.pk), run)


def leave_cancellation(run: Run, wait_id: int, event_id: str) -> None:
    """Leave to others whether an event cancels a run by the rule of a wait."""
    _leave(CANCELLATION, f"{wait_id} {event_id}"[:255], run)


def _leave(kind: str, item: str, run: Run) -> None:
    now = clock.now()
    row = SweepError(
        kind=kind,
        item=item,
        run_id=run.pk,
        message=f"The code of a process lacked the function {run.function!r}.",
        since=now,
        last_at=now,
        until=now,
    )
    db.rows(SweepError).bulk_create([row], ignore_conflicts=True)


def handlers(functions: Iterable[str], limit: int) -> list[tuple[SweepError, Run]]:
    """Return ended runs of these functions whose handlers were left."""
    return _with_runs(HANDLER, Q(status__in=sorted(TERMINAL)), functions, limit)


def cancellations(functions: Iterable[str], limit: int) -> list[tuple[SweepError, Run]]:
    """Return live runs of these functions that an event may cancel."""
    return _with_runs(CANCELLATION, Q(status__in=sorted(LIVE)), functions, limit)


def _with_runs(
    kind: str, state: Q, functions: Iterable[str], limit: int
) -> list[tuple[SweepError, Run]]:
    found = db.rows(SweepError).filter(kind=kind)
    if not found.exists():  # as nearly always
        return []
    chosen = db.rows(Run).filter(state, function__in=list(functions))
    chosen = chosen.filter(pk__in=found.values("run_id"))
    left = found.filter(run_id__in=chosen.values("pk")).order_by("until", "pk")[:limit]
    every = list(left)
    runs = db.rows(Run).in_bulk([row.run_id for row in every])
    return [(row, runs[row.run_id]) for row in every if row.run_id in runs]


def open_rows() -> QuerySet[SweepError]:
    """Return what was left of runs for which it can still be done."""
    runs = db.rows(Run).filter(pk=OuterRef("run_id"))
    ended, live = sorted(TERMINAL), sorted(LIVE)
    return db.rows(SweepError).filter(
        Q(Exists(runs.filter(status__in=ended)), kind=HANDLER)
        | Q(Exists(runs.filter(status__in=live)), kind=CANCELLATION)
    )


def take(row: SweepError) -> bool:
    """Take what was left, inside a transaction; return whether this call did."""
    return bool(db.rows(SweepError).filter(pk=row.pk)._raw_delete(db.alias()))


def look_later(row: SweepError) -> None:
    """Let the rest of what was left go first the next time."""
    db.rows(SweepError).filter(pk=row.pk).update(until=clock.now())


def note_later_release(run: Run, needs: str) -> bool:
    """Note that a run needs a later release; return whether that is news."""
    now = clock.now()
    known = db.rows(SweepError).filter(kind=LATER_RELEASE, item=str(run.pk))
    values = {"message": needs, "last_at": now, "until": now + SEEN}
    # One that no process has left for a while was executed since then.
    if known.filter(until__lt=now).update(since=now, **values):
        return True
    if known.update(**values):
        return False
    row = SweepError(
        kind=LATER_RELEASE, item=str(run.pk), run_id=run.pk, since=now, **values
    )
    return bool(db.rows(SweepError).bulk_create([row], ignore_conflicts=True))


def of_later_releases(since: datetime | None = None) -> QuerySet[SweepError]:
    """Return the rows of queued runs that need a later release.

    ``since``: only of runs that have needed it since then or for longer.
    """
    now = clock.now()
    queued = db.rows(Run).filter(
        pk=OuterRef("run_id"), status=RunStatus.QUEUED, due_at__lte=since or now
    )
    found = db.rows(SweepError).filter(kind=LATER_RELEASE, until__gte=now)
    return found.filter(Exists(queued), since__lte=since or now)


def later_release_of(run_id: uuid.UUID) -> str | None:
    """Return what a run needs of a later release; None if nothing is known."""
    found = of_later_releases().filter(run_id=run_id)
    return found.values_list("message", flat=True).first()
