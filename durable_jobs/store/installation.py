"""The id of this installation: read once a process, and written once a database."""

from __future__ import annotations

import uuid
from typing import Any

from django.db import Error, connections, transaction

from durable_jobs import clock
from durable_jobs.conf import settings
from durable_jobs.models import Installation
from durable_jobs.store import db

#: For how many seconds the id is not asked for after the database did not tell it.
PAUSE = 10.0

#: The ids that this process has read, by the database that they are of.
_known: dict[tuple[str, ...], uuid.UUID] = {}
#: When the database may be asked again.
_ask_at = float("-inf")


def key() -> uuid.UUID | None:
    """Return the id of this installation, or None while the database does not tell.

    So it is before the migration that brings the table, and in an outage.
    """
    global _ask_at
    place = _place()
    if place not in _known and clock.monotonic() >= _ask_at:
        try:
            found = _read()
        except Error:
            found = None
        if found is None:
            _ask_at = clock.monotonic() + PAUSE
        else:
            _known[place] = found
    return _known.get(place)


def _place() -> tuple[str, ...]:
    """Return which database holds the runs; a process may be told to use another."""
    written = connections[db.alias()].settings_dict
    return tuple(str(written[name]) for name in ("HOST", "PORT", "NAME"))


def _read() -> uuid.UUID | None:
    rows = db.rows(Installation).filter(pk=Installation.ONLY)
    found = rows.values_list("key", flat=True).first()
    if found is None and not db.connection().in_atomic_block:
        # A row made in a transaction of the caller might be rolled back.
        db.rows(Installation).get_or_create(pk=Installation.ONLY)
        found = rows.values_list("key", flat=True).first()
    return found


def ensure(using: str, **kwargs: Any) -> None:
    """Make the row after a migration, and again after a flush, with the same id."""
    if using != settings.DATABASE:
        return
    table = Installation._meta.db_table
    if table not in connections[using].introspection.table_names():
        return  # migrated back to before the table
    with transaction.atomic(using=using):
        made, _ = Installation.objects.using(using).get_or_create(
            pk=Installation.ONLY, defaults={"key": _known.get(_place(), uuid.uuid4())}
        )
    _known[_place()] = made.key


def record_other(other: uuid.UUID, queue: str) -> None:
    """Write that a message of another installation came by a queue."""
    db.rows(Installation).filter(pk=Installation.ONLY).update(
        other_key=other, other_queue=queue[:255], other_seen_at=clock.now()
    )
