"""Check in one query whether a wake-up has work besides claiming.

The SQL is written out, because building it from querysets takes several times as long
as executing it.
"""

from __future__ import annotations

from durable_jobs import clock
from durable_jobs.models import Event, Wait
from durable_jobs.store import db
from durable_jobs.store.postgres import prepared

# The statement selects the earliest row of each and compares it. For "is there a row
# before a time", a plan for unknown values would read the whole table.
_CHECK = f"""
SELECT COALESCE((SELECT ts FROM {Event._meta.db_table}
                 WHERE pending AND (route_after IS NULL OR route_after <= %s)
                 ORDER BY ts LIMIT 1) <= %s, false),
    COALESCE((SELECT due_at FROM {Wait._meta.db_table}
              WHERE due_at IS NOT NULL ORDER BY due_at LIMIT 1) <= %s, false)
"""  # noqa: S608  # our own tables


def check() -> tuple[bool, bool]:
    """Return whether there are unrouted events, and whether waits are due.

    The statement reads only small partial indexes.
    """
    now = db.connection().ops.adapt_datetimefield_value(clock.now())
    [(pending, due)] = prepared.fetch(_CHECK, [now, now, now])
    return bool(pending), bool(due)
