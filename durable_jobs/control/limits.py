"""Override the value of a limit."""

from __future__ import annotations

from durable_jobs import notifier
from durable_jobs.lifecycle import admission
from durable_jobs.models import Limit
from durable_jobs.store import db

ALL = 1_000_000


def set_limit(limit_row: Limit, limit: int | None) -> None:
    """Override a limit, or remove the override with None.

    With a lower limit, held slots stay until their runs end. With a higher limit, more
    runs are promoted at once.
    """
    rows = db.rows(Limit).filter(pk=limit_row.pk)
    rows.update(override=limit)
    limit_row.override = limit
    count = ALL if limit is None else limit
    db.after_commit(lambda: admission.reopen(limit_row.name, count))
    for queue in limit_row.backlogs.values_list("queue", flat=True).distinct():
        notifier.notify(queue)
