"""What is paused, as claims ask for it."""

from __future__ import annotations

from django.db.models import OuterRef, QuerySet

from durable_jobs.models import Pause
from durable_jobs.store import db


def functions() -> QuerySet[Pause, str]:
    """Return the ids of the functions that start nothing now."""
    rows = Pause.objects.using(db.alias()).filter(kind=Pause.FUNCTION)
    return rows.values_list("name", flat=True)


def of_queue(queue: str | OuterRef) -> QuerySet[Pause]:
    """Return the pause of a queue, if there is one."""
    return Pause.objects.using(db.alias()).filter(kind=Pause.QUEUE, name=queue)
