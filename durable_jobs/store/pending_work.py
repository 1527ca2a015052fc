"""The look with which every wake-up is answered: is there more to do than to claim?

Written out, for to make it of querysets takes several times as long as to answer it.
"""

from __future__ import annotations

from durable_jobs import clock
from durable_jobs.models import Event, Wait
from durable_jobs.store import db
from durable_jobs.store.postgres import prepared

# The earliest of each, for a plan that is to do for all values: whether there is one
# before a moment that it does not know, it would look up in the whole table.
_LOOK = f"""
SELECT COALESCE((SELECT ts FROM {Event._meta.db_table}
                 WHERE pending AND (route_after IS NULL OR route_after <= %s)
                 ORDER BY ts LIMIT 1) <= %s, false),
    COALESCE((SELECT due_at FROM {Wait._meta.db_table}
              WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1) <= %s, false)
"""  # noqa: S608  # our own tables


def check() -> tuple[bool, bool]:
    """Tell whether events were not offered to the waits yet, and whether waits are due.

    In one statement over small partial indexes.
    """
    now = db.connection().ops.adapt_datetimefield_value(clock.now())
    [(pending, due)] = prepared.fetch(_LOOK, [now, now, now])
    return bool(pending), bool(due)
