"""Evaluate several small queries in one statement that is compiled once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db.models import Exists, QuerySet

from durable_jobs.store import db

#: Queries by name: ``Exists`` for a bool, or a queryset for its first value.
Queries = Mapping[str, Exists | QuerySet[Any, Any]]

#: Compiled statements that are kept. A process has few sets of arguments.
MAX_COMPILED = 16
#: Placeholders for times. They are found in the compiled statement and replaced.
_TIMES = [datetime(1901, 1, day, tzinfo=UTC) for day in range(1, 13)]
#: Placeholders for strings.
_TEXTS = [f"placeholder {number} for a string" for number in range(12)]


class Probe:
    """Queries that are evaluated often.

    Building the SQL from querysets takes several times as long as executing it, so it
    is built once. ``make`` takes up to a dozen times and strings that differ from call
    to call, and other arguments for which the SQL is built anew.
    """

    def __init__(self, make: Callable[..., Queries]) -> None:
        self._make = make
        self._compiled: dict[Hashable, _Compiled] = {}

    def evaluate(
        self, varying: Sequence[datetime | str], *fixed: Hashable
    ) -> dict[str, Any]:
        """Return the results by name: a bool for an ``Exists``, else a value or None.

        A value has the type that the driver returns, which is not always ``datetime``.
        """
        key = (db.alias(), *fixed)
        compiled = self._compiled.get(key)
        marks = [
            texts if isinstance(value, str) else times
            for value, times, texts in zip(varying, _TIMES, _TEXTS, strict=False)
        ]
        if compiled is None:
            if len(self._compiled) >= MAX_COMPILED:
                self._compiled.clear()
            compiled = self._compiled[key] = _compile(self._make(*marks, *fixed))
        values = dict(zip(map(_adapt, marks), map(_adapt, varying), strict=True))
        return compiled.evaluate(
            [values.get(value, value) for value in compiled.values]
        )


def _adapt(value: datetime | str) -> Any:
    if isinstance(value, str):
        return value
    return db.connection().ops.adapt_datetimefield_value(value)


def walk(probe: Probe, times: Sequence[datetime], *fixed: Hashable) -> Iterator[str]:
    """Yield the strings for which the probe finds rows, with one statement per string.

    The probe takes a string after the times. It returns in ``here`` whether there are
    rows for the string, and in ``next`` the next string in the index.
    """
    text: str | None = ""
    while text is not None:
        results = probe.evaluate([*times, text], *fixed)
        if results["here"]:
            yield text
        text = results["next"]


class _Compiled(NamedTuple):
    names: list[str]
    text: str
    values: list[Any]
    #: Whether each result is a bool.
    booleans: list[bool]

    def evaluate(self, values: Sequence[Any]) -> dict[str, Any]:
        with db.connection().cursor() as cursor:
            cursor.execute(self.text, values)
            row = cursor.fetchone()
        return {
            name: bool(value) if boolean else value
            for name, value, boolean in zip(self.names, row, self.booleans, strict=True)
        }


def _compile(queries: Queries) -> _Compiled:
    """Compile each query apart, because Django has no SELECT without a table."""
    parts, values, booleans = [], [], []
    for item in queries.values():
        boolean = isinstance(item, Exists)
        query = item.query.exists() if boolean else item.query
        booleans.append(boolean)
        try:
            sql, parameters = query.get_compiler(connection=db.connection()).as_sql()
        except EmptyResultSet:  # the condition can never match
            parts.append("1 = 0" if boolean else "NULL")
            continue
        parts.append(f"EXISTS({sql})" if boolean else f"({sql})")
        values += parameters
    return _Compiled(list(queries), f"SELECT {', '.join(parts)}", values, booleans)
