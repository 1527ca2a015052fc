"""The id of this installation: written once per database, read once per process."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import Error, connections, transaction

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.models import Installation
from durable_jobs.store import db

#: Seconds between attempts to read the id.
RETRY_INTERVAL = 10.0

#: The ids that this process has read, by database.
_known: dict[tuple[str, ...], uuid.UUID] = {}
#: When the next attempt to read the id is allowed.
_retry_at = float("-inf")


def key() -> uuid.UUID | None:
    """Return the id of this installation, or None while it is not readable.

    The id is not readable during an outage, and before the table is migrated.
    """
    global _retry_at
    database = _database()
    if database not in _known and clock.monotonic() >= _retry_at:
        try:
            found = _read()
        except Error:
            found = None
        if found is None:
            _retry_at = clock.monotonic() + RETRY_INTERVAL
        else:
            _known[database] = found
    return _known.get(database)


def _database() -> tuple[str, ...]:
    """Return the address of the database, which a process may change at run time."""
    written = connections[db.alias()].settings_dict
    return tuple(str(written[name]) for name in ("HOST", "PORT", "NAME"))


def _read() -> uuid.UUID | None:
    rows = db.rows(Installation).filter(pk=Installation.ONLY)
    found = rows.values_list("key", flat=True).first()
    if found is None and not db.connection().in_atomic_block:
        # The caller's transaction could roll the new row back.
        db.rows(Installation).get_or_create(pk=Installation.ONLY)
        found = rows.values_list("key", flat=True).first()
    return found


def ensure(using: str, **kwargs: Any) -> None:
    """Create the row after a migration, and again after a flush with the same id."""
    if using != settings.DATABASE:
        return
    table = Installation._meta.db_table
    if table not in connections[using].introspection.table_names():
        return  # migrated back to before the table
    with transaction.atomic(using=using):
        made, _ = Installation.objects.using(using).get_or_create(
            pk=Installation.ONLY,
            defaults={"key": _known.get(_database(), uuid.uuid4())},
        )
    _known[_database()] = made.key


def record_other(other: uuid.UUID, queue: str) -> None:
    """Record that a queue had a message of another installation."""
    db.rows(Installation).filter(pk=Installation.ONLY).update(
        other_key=other, other_queue=queue[:255], other_seen_at=clock.now()
    )
