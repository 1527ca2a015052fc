"""The pauses that claims check, and the runs from before a pause."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import OuterRef, QuerySet

from durable_jobs.models import Pause, Run
from durable_jobs.store import db

#: The number of latest runs that may have the same queued time as a pause.
LATEST = 1000


def functions() -> QuerySet[Pause, str]:
    """Return the ids of the paused functions."""
    rows = db.rows(Pause).filter(kind=Pause.FUNCTION)
    return rows.values_list("name", flat=True)


def of_queue(queue: str | OuterRef) -> QuerySet[Pause]:
    """Return the pause of a queue, if there is one."""
    return db.rows(Pause).filter(kind=Pause.QUEUE, name=queue)


def separate_earlier_runs(function: str, moment: datetime) -> None:
    """Set the queued time of existing runs of a function to before ``moment``.

    With a stopped clock, earlier and later runs would have the same queued time.
    """
    rows = db.rows(Run).filter(function=function).order_by("-pk")
    latest = rows.values_list("pk", "queued_at")[:LATEST]
    same = [pk for pk, queued_at in latest if queued_at == moment]
    if same:
        before = moment - timedelta(microseconds=1)
        db.rows(Run).filter(pk__in=same).update(queued_at=before)
