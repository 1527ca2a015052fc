"""Asking many yes-or-no questions in one statement."""

from __future__ import annotations

from collections.abc import Mapping

from django.core.exceptions import EmptyResultSet
from django.db.models import Exists

from durable_jobs.store import db


def evaluate(questions: Mapping[str, Exists]) -> dict[str, bool]:
    """Return the answers to ``EXISTS`` questions, in one round trip.

    Django has no SELECT without a table, so the parts are compiled one by one.
    """
    connection = db.connection()
    parts, values = [], []
    for question in questions.values():
        query = question.query
        compiler = query.exists().get_compiler(connection=connection)
        try:
            sql, parameters = compiler.as_sql()
        except EmptyResultSet:  # Django knows that there is nothing, without asking
            parts.append("1 = 0")
            continue
        parts.append(f"EXISTS({sql})")
        values += parameters
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(parts)}", values)
        row = cursor.fetchone()
    return {name: bool(value) for name, value in zip(questions, row, strict=True)}
