"""Runs of model instances, in one bounded statement for many instances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model, QuerySet

from durable_jobs.lifecycle.run_subjects import label_of
from durable_jobs.models import Run, Subject
from durable_jobs.queries import visibility
from durable_jobs.statuses import LIVE, RunStatus
from durable_jobs.store import db

#: Newest runs of one instance that are counted.
COUNTED = 100
#: Instances per statement.
CHUNK = 1000
_UNLOADED = ("data", "output", "error", "event_meta")


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of runs of an instance, among the newest ``COUNTED``."""

    total: int = 0
    live: int = 0
    failed: int = 0

    @property
    def more(self) -> bool:
        """Return whether there may be runs that were not counted."""
        return self.total >= COUNTED


def newest(instance: Model, most: int) -> list[Run]:
    """Return the newest runs of an instance, without payloads."""
    rows = _subjects(type(instance)).filter(object_pk=str(instance.pk))
    deferred = [f"run__{name}" for name in _UNLOADED]
    found = rows.select_related("run").defer(*deferred).order_by("-run_id")
    return [subject.run for subject in found[:most]]


def live(instances: Sequence[Model], most: int) -> list[tuple[str, Run]]:
    """Return live runs of instances of one model as ``(object_pk, run)``."""
    found: list[tuple[str, Run]] = []
    for keys in _chunks([str(one.pk) for one in instances]):
        rows = _subjects(type(instances[0])).filter(
            object_pk__in=keys, run__status__in=sorted(LIVE)
        )
        deferred = [f"run__{name}" for name in _UNLOADED]
        chosen = rows.select_related("run").defer(*deferred).order_by("-run_id")
        found += [(one.object_pk, one.run) for one in chosen[: most - len(found)]]
        if len(found) >= most:
            break
    return found


def counts(model: type[Model], keys: Sequence[str]) -> dict[str, Counts]:
    """Count the runs of many instances in one statement."""
    if not keys:
        return {}
    if visibility.is_narrowed():
        return {key: _counted_apart(model, key) for key in keys}
    statuses = [*(status.value for status in sorted(LIVE)), RunStatus.FAILED.value]
    with db.connection().cursor() as cursor:
        cursor.execute(
            _counting(len(keys)), [*keys, *statuses, label_of(model), COUNTED]
        )
        rows = cursor.fetchall()
    return {key: Counts(*map(int, text.split())) for key, text in rows}


def _counted_apart(model: type[Model], key: str) -> Counts:
    """Count the visible runs of one instance.

    A visibility rule cannot be part of the raw statement.
    """
    rows = _subjects(model).filter(object_pk=key).order_by("-run_id")
    found = list(rows.values_list("run__status", flat=True)[:COUNTED])
    return Counts(
        total=len(found),
        live=sum(status in LIVE for status in found),
        failed=found.count(RunStatus.FAILED.value),
    )


def _counting(count: int) -> str:
    """Return the statement, which reads only the newest runs of each instance.

    A scalar subquery returns one value, so the three counts are one string.
    """
    wanted = ", ".join(["(CAST(%s AS varchar(255)))"] * count)
    living = ", ".join(["%s"] * len(LIVE))
    run, subject = Run._meta.db_table, Subject._meta.db_table
    return f"""
WITH wanted(object_pk) AS (VALUES {wanted})
SELECT wanted.object_pk, (
    SELECT CAST(COUNT(*) AS varchar(20))
        || ' ' || CAST(COUNT(CASE WHEN status IN ({living}) THEN 1 END) AS varchar(20))
        || ' ' || CAST(COUNT(CASE WHEN status = %s THEN 1 END) AS varchar(20))
    FROM (
        SELECT r.status FROM {subject} s JOIN {run} r ON r.id = s.run_id
        WHERE s.model = %s AND s.object_pk = wanted.object_pk
        ORDER BY s.run_id DESC LIMIT %s
    ) AS newest)
FROM wanted
"""  # noqa: S608  # our own tables, and placeholders


def _subjects(model: type[Model]) -> QuerySet[Any]:
    rows = db.rows(Subject).filter(model=label_of(model))
    return visibility.of_runs(rows)


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[first : first + CHUNK] for first in range(0, len(keys), CHUNK))
