"""Work that a process must leave to another process with newer code or a newer version.

During a rolling deploy, an old worker may end a run whose handler only new code has. It
may also read a step or a value that only a newer version supports. Such work is kept as
a row of the table of sweep errors, with its own kind, until a process can do it.
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

#: The handler of an ended run must be started.
HANDLER = "handler"
#: An event may cancel a run.
CANCELLATION = "cancellation"
#: A run needs a newer version of this package.
NEWER_VERSION = "newer version"
KINDS = frozenset({HANDLER, CANCELLATION, NEWER_VERSION})

#: A row of this age is obsolete: a process with the version has executed the run.
SEEN = timedelta(minutes=3)


def rows() -> QuerySet[SweepError]:
    """Return all rows of left work."""
    return db.rows(SweepError).filter(kind__in=sorted(KINDS))


def leave_handler(run: Run) -> None:
    """Record that a handler must be started, in the transaction that ends the run."""
    _leave(HANDLER, str(run.pk), run)


def leave_cancellation(run: Run, wait_id: int, event_id: str) -> None:
    """Record that another process must check whether an event cancels a run."""
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
    """Return ended runs of the functions whose handlers must be started."""
    return _with_runs(HANDLER, Q(status__in=sorted(TERMINAL)), functions, limit)


def cancellations(functions: Iterable[str], limit: int) -> list[tuple[SweepError, Run]]:
    """Return live runs of the functions that an event may cancel."""
    return _with_runs(CANCELLATION, Q(status__in=sorted(LIVE)), functions, limit)


def _with_runs(
    kind: str, state: Q, functions: Iterable[str], limit: int
) -> list[tuple[SweepError, Run]]:
    found = db.rows(SweepError).filter(kind=kind)
    if not found.exists():  # the usual case
        return []
    chosen = db.rows(Run).filter(state, function__in=list(functions))
    chosen = chosen.filter(pk__in=found.values("run_id"))
    left = found.filter(run_id__in=chosen.values("pk")).order_by("until", "pk")[:limit]
    every = list(left)
    runs = db.rows(Run).in_bulk([row.run_id for row in every])
    return [(row, runs[row.run_id]) for row in every if row.run_id in runs]


def open_rows() -> QuerySet[SweepError]:
    """Return the rows whose work can still be done."""
    runs = db.rows(Run).filter(pk=OuterRef("run_id"))
    ended, live = sorted(TERMINAL), sorted(LIVE)
    return db.rows(SweepError).filter(
        Q(Exists(runs.filter(status__in=ended)), kind=HANDLER)
        | Q(Exists(runs.filter(status__in=live)), kind=CANCELLATION)
    )


def delete(row: SweepError) -> bool:
    """Delete a row in the caller's transaction; return whether this call did it."""
    return bool(db.rows(SweepError).filter(pk=row.pk)._raw_delete(db.alias()))


def move_to_end(row: SweepError) -> None:
    """Move a row behind the other rows."""
    db.rows(SweepError).filter(pk=row.pk).update(until=clock.now())


def record_needed_version(run: Run, needs: str) -> bool:
    """Record that a run needs a newer version; return whether the record is new."""
    now = clock.now()
    known = db.rows(SweepError).filter(kind=NEWER_VERSION, item=str(run.pk))
    values = {"message": needs, "last_at": now, "until": now + SEEN}
    # An old row is obsolete: the run was executed since then.
    if known.filter(until__lt=now).update(since=now, **values):
        return True
    if known.update(**values):
        return False
    row = SweepError(
        kind=NEWER_VERSION, item=str(run.pk), run_id=run.pk, since=now, **values
    )
    return bool(db.rows(SweepError).bulk_create([row], ignore_conflicts=True))


def needing_newer_version(since: datetime | None = None) -> QuerySet[SweepError]:
    """Return the rows of queued runs that need a newer version.

    With ``since``, only the runs that have needed it since that time or longer.
    """
    now = clock.now()
    queued = db.rows(Run).filter(
        pk=OuterRef("run_id"), status=RunStatus.QUEUED, due_at__lte=since or now
    )
    found = db.rows(SweepError).filter(kind=NEWER_VERSION, until__gte=now)
    return found.filter(Exists(queued), since__lte=since or now)


def needed_version_of(run_id: uuid.UUID) -> str | None:
    """Return what a run needs from a newer version, or None if it is not known."""
    found = needing_newer_version().filter(run_id=run_id)
    return found.values_list("message", flat=True).first()
