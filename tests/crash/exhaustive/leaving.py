"""What a process leaves behind that dies at a hit: two that leave the same are one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connection

#: Of each table the number of rows, and a hash of all that is in them.
Left = tuple[Any, ...]


class Onlooker:
    """Reads what is committed, over a connection of its own."""

    def __init__(self) -> None:
        self._connection = connection.copy()
        self._query = " UNION ALL ".join(
            f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {name} t"  # noqa: S608  # our own tables
            for name in sorted({model._meta.db_table for model in apps.get_models()})
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
def onlooker() -> Iterator[Onlooker]:
    """Give one inside the block."""
    one = Onlooker()
    try:
        yield one
    finally:
        one.close()
