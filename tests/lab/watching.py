"""Observe runs from outside, while processes execute them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from django.db import connection

from durable_jobs.models import Run
from tests.lab.models import Effect
from tests.lab.processes import APPLICATION


def ended(*runs: Run) -> bool:
    """Return whether runs have ended."""
    rows = Run.objects.filter(pk__in=[run.pk for run in runs], ended_at__isnull=False)
    return rows.count() == len(runs)


def completed(*runs: Run) -> bool:
    """Return whether all runs have completed; fail as soon as one ended otherwise."""
    rows = Run.objects.filter(pk__in=[run.pk for run in runs])
    for run in rows.filter(status__in=["failed", "cancelled", "paused"]):
        raise AssertionError(f"{run} is {run.status}: {run.reason} {run.error}")
    return rows.filter(status="completed").count() == len(runs)


def labels(run: Run) -> Counter[str]:
    """Return how often each of a run's bodies was called, bookings apart."""
    done = Effect.objects.filter(run=str(run.pk), booked__isnull=True)
    return Counter(done.values_list("label", flat=True))


def backends() -> list[int]:
    """Return the server processes that serve the lab's own processes.

    Other server processes exist too. The connection of an ended thread of this process
    closes only when the garbage collector runs.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend' AND application_name = %s",
            [APPLICATION],
        )
        return [row[0] for row in cursor.fetchall()]


def terminate(pids: Iterable[int]) -> int:
    """End server processes as an administrator does; return how many there were."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid))"
            " FROM unnest(%s::int[]) AS pid",
            [list(pids)],
        )
        return int(cursor.fetchone()[0])
