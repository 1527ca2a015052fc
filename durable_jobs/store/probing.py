"""Asking many yes-or-no questions in one statement."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db.models import Exists

from durable_jobs.store import db

Questions = Mapping[str, Exists]

#: Compiled questions that are kept: a process asks about the functions that it knows.
MOST = 16
#: Stand for the times while questions are compiled, so that they are found in there.
_MARKS = [datetime(1901, 1, day, tzinfo=UTC) for day in (1, 2, 3)]


def evaluate(questions: Questions) -> dict[str, bool]:
    """Return the answers to ``EXISTS`` questions, in one round trip."""
    compiled = _compile(questions)
    return compiled.ask(compiled.values)


class Probe:
    """Questions that are asked again and again.

    To make them of querysets takes several times as long as to answer them, so this is
    done once. ``make`` gets times, and whatever else they depend on.
    """

    def __init__(self, make: Callable[..., Questions]) -> None:
        self._make = make
        self._compiled: dict[Hashable, _Compiled] = {}

    def ask(self, times: Sequence[datetime], *given: Hashable) -> dict[str, bool]:
        """Return the answers as of up to three times."""
        adapt = db.connection().ops.adapt_datetimefield_value
        key = (db.alias(), *given)
        compiled = self._compiled.get(key)
        marks = _MARKS[: len(times)]
        if compiled is None:
            if len(self._compiled) >= MOST:
                self._compiled.clear()
            compiled = self._compiled[key] = _compile(self._make(*marks, *given))
        moments = dict(zip(map(adapt, marks), map(adapt, times), strict=True))
        return compiled.ask([moments.get(value, value) for value in compiled.values])


class _Compiled(NamedTuple):
    names: list[str]
    text: str
    values: list[Any]

    def ask(self, values: Sequence[Any]) -> dict[str, bool]:
        with db.connection().cursor() as cursor:
            cursor.execute(self.text, values)
            row = cursor.fetchone()
        return {name: bool(value) for name, value in zip(self.names, row, strict=True)}


def _compile(questions: Questions) -> _Compiled:
    """Django has no SELECT without a table, so the parts are compiled one by one."""
    parts, values = [], []
    for question in questions.values():
        compiler = question.query.exists().get_compiler(connection=db.connection())
        try:
            sql, parameters = compiler.as_sql()
        except EmptyResultSet:  # Django knows that there is nothing, without asking
            parts.append("1 = 0")
            continue
        parts.append(f"EXISTS({sql})")
        values += parameters
    return _Compiled(list(questions), f"SELECT {', '.join(parts)}", values)
