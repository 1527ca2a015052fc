"""The state that a crash leaves behind, to find hits with identical consequences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.db import connection

#: The number of rows of each table, and a hash of their contents.
Left = tuple[Any, ...]


class Onlooker:
    """Reads the committed state over its own connection."""

    def __init__(self) -> None:
        self._connection = connection.copy()
        self._query = " UNION ALL ".join(
            f"SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {name} t"  # noqa: S608  # our own tables
            for name in sorted({model._meta.db_table for model in apps.get_models()})
        )

    def look(self) -> Left:
        """Return the state that other connections see now."""
        with self._connection.cursor() as cursor:
            cursor.execute(self._query)
            return tuple(cursor.fetchall())

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def onlooker() -> Iterator[Onlooker]:
    """Yield an onlooker and close it after the block."""
    one = Onlooker()
    try:
        yield one
    finally:
        one.close()
