"""What is paused, as claims ask for it, and what came before."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import OuterRef, QuerySet

from durable_jobs.models import Pause, Run
from durable_jobs.store import db

#: As many runs may come in the moment of a pause and be told from those that follow.
LATEST = 1000


def functions() -> QuerySet[Pause, str]:
    """Return the ids of the functions that start nothing now."""
    rows = db.rows(Pause).filter(kind=Pause.FUNCTION)
    return rows.values_list("name", flat=True)


def of_queue(queue: str | OuterRef) -> QuerySet[Pause]:
    """Return the pause of a queue, if there is one."""
    return db.rows(Pause).filter(kind=Pause.QUEUE, name=queue)


def separate_earlier_runs(function: str, moment: datetime) -> None:
    """Let the runs of a function that are there by now have come before ``moment``.

    Where a clock stands still, nothing else would tell them from those that follow.
    """
    rows = db.rows(Run).filter(function=function).order_by("-pk")
    latest = rows.values_list("pk", "queued_at")[:LATEST]
    same = [pk for pk, queued_at in latest if queued_at == moment]
    if same:
        before = moment - timedelta(microseconds=1)
        db.rows(Run).filter(pk__in=same).update(queued_at=before)
