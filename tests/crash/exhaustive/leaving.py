"""What a process leaves behind that dies at a hit: two that leave the same are one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection, models

#: The number of rows of each table, and a hash of all that is in them.
Left = tuple[Any, ...]


class Onlooker:
    """Reads what is committed, over a connection of its own."""

    def __init__(self, tables: Sequence[type[models.Model]]) -> None:
        self._connection = connection.copy()
        self._query = " UNION ALL ".join(
            f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {name} t"  # noqa: S608  # our own tables
            for name in (model._meta.db_table for model in tables)
        )

    def look(self) -> Left:
        """Return what somebody else sees at this moment."""
        with self._connection.cursor() as cursor:
            cursor.execute(self._query)
            return tuple(cursor.fetchall())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def onlooker(tables: Sequence[type[models.Model]]) -> Iterator[Onlooker]:
    """Give one inside the block."""
    one = Onlooker(tables)
    try:
        yield one
    finally:
        one.close()
