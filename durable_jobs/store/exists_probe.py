"""Asking many questions in one statement, which is made once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db.models import Exists, QuerySet

from durable_jobs.store import db

#: What is asked, by name: whether there is something, or the value that a query gives.
Queries = Mapping[str, Exists | QuerySet[Any, Any]]

#: Compiled questions that are kept: a process asks about the functions that it knows.
MAX_COMPILED = 16
#: Stand for the times while questions are compiled, so that they are found in there.
_TIMES = [datetime(1901, 1, day, tzinfo=UTC) for day in range(1, 13)]
#: And for the texts.
_TEXTS = [f"text {number} of a dozen that stand for others" for number in range(12)]


class Probe:
    """Queries that are asked again and again.

    To make them of querysets takes several times as long as to answer them, so this is
    done once. ``make`` gets up to a dozen times and texts that differ from call to
    call, and whatever else the questions depend on.
    """

    def __init__(self, make: Callable[..., Queries]) -> None:
        self._make = make
        self._compiled: dict[Hashable, _Compiled] = {}

    def evaluate(
        self, passing: Sequence[datetime | str], *given: Hashable
    ) -> dict[str, Any]:
        """Return the answers: a bool for an ``Exists``; else a value, or None for none.

        A value is as the database has it: a time is no ``datetime`` everywhere.
        """
        key = (db.alias(), *given)
        compiled = self._compiled.get(key)
        marks = [
            texts if isinstance(value, str) else times
            for value, times, texts in zip(passing, _TIMES, _TEXTS, strict=False)
        ]
        if compiled is None:
            if len(self._compiled) >= MAX_COMPILED:
                self._compiled.clear()
            compiled = self._compiled[key] = _compile(self._make(*marks, *given))
        values = dict(zip(map(_adapt, marks), map(_adapt, passing), strict=True))
        return compiled.evaluate(
            [values.get(value, value) for value in compiled.values]
        )


def _adapt(value: datetime | str) -> Any:
    if isinstance(value, str):
        return value
    return db.connection().ops.adapt_datetimefield_value(value)


def walk(probe: Probe, times: Sequence[datetime], *given: Hashable) -> Iterator[str]:
    """Give the texts at which something is there, one statement for each there is.

    The probe, which gets the text after the times, answers ``here`` for it and gives
    the ``next`` one: a look into an index, however many rows have the same.
    """
    text: str | None = ""
    while text is not None:
        answers = probe.evaluate([*times, text], *given)
        if answers["here"]:
            yield text
        text = answers["next"]


class _Compiled(NamedTuple):
    names: list[str]
    text: str
    values: list[Any]
    #: Which of the answers are yes or no.
    decided: list[bool]

    def evaluate(self, values: Sequence[Any]) -> dict[str, Any]:
        with db.connection().cursor() as cursor:
            cursor.execute(self.text, values)
            row = cursor.fetchone()
        return {
            name: bool(value) if decided else value
            for name, value, decided in zip(self.names, row, self.decided, strict=True)
        }


def _compile(questions: Queries) -> _Compiled:
    """Django has no SELECT without a table, so the parts are compiled one by one."""
    parts, values, decided = [], [], []
    for question in questions.values():
        yes_or_no = isinstance(question, Exists)
        query = question.query.exists() if yes_or_no else question.query
        decided.append(yes_or_no)
        try:
            sql, parameters = query.get_compiler(connection=db.connection()).as_sql()
        except EmptyResultSet:  # Django knows that there is nothing, without asking
            parts.append("1 = 0" if yes_or_no else "NULL")
            continue
        parts.append(f"EXISTS({sql})" if yes_or_no else f"({sql})")
        values += parameters
    return _Compiled(list(questions), f"SELECT {', '.join(parts)}", values, decided)
