"""Override the value of a limit."""

from __future__ import annotations

from durable_jobs import notifier
from durable_jobs.lifecycle import admission
from durable_jobs.models import Limit
from durable_jobs.store import db

ALL = 1_000_000


def set_limit(limit_row: Limit, limit: int | None) -> None:
    """Set the limit of one limit, or give it back to the declaration.

    A lower one lets what is there drain; a higher one lets more through at once.
    """
    rows = db.rows(Limit).filter(pk=limit_row.pk)
    rows.update(override=limit)
    limit_row.override = limit
    room = ALL if limit is None else limit
    db.after_commit(lambda: admission.reopen(limit_row.name, room))
    for queue in limit_row.backlogs.values_list("queue", flat=True).distinct():
        notifier.notify(queue)
