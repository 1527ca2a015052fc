"""The look with which every bell is answered: is there more to do than to claim?

Written out, for to make it of querysets takes several times as long as to answer it.
"""

from __future__ import annotations

from durable_jobs import clock
from durable_jobs.models import Event, Wait
from durable_jobs.store import db

_LOOK = f"""
SELECT EXISTS (SELECT 1 FROM {Event._meta.db_table} WHERE pending AND ts <= %s),
    EXISTS (SELECT 1 FROM {Wait._meta.db_table}
            WHERE due_at IS NOT NULL AND due_at <= %s)
"""  # noqa: S608  # our own tables


def look() -> tuple[bool, bool]:
    """Tell whether events were not offered to the waits yet, and whether waits are due.

    In one statement over small partial indexes.
    """
    connection = db.connection()
    now = connection.ops.adapt_datetimefield_value(clock.now())
    with connection.cursor() as cursor:
        cursor.execute(_LOOK, [now, now])
        pending, due = cursor.fetchone()
    return bool(pending), bool(due)
