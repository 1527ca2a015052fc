"""Workers and beats are killed and frozen between two commits."""

from __future__ import annotations

import signal
from datetime import timedelta

import pytest
from django.db import connection

from durable_jobs import clock
from durable_jobs.models import Run, Schedule, Step
from tests.lab import durable as functions
from tests.lab.models import Account, Effect
from tests.lab.processes import Lab, until
from tests.lab.watching import completed, ended, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


#: The server ends a transaction that stays open for longer.
BOUNDED = {"PGOPTIONS": "-c idle_in_transaction_session_timeout=2s"}


def booking(run: Run) -> bool:
    """Return whether the transaction of a run's slow booking is open."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            " AND state = 'idle in transaction'",
            [f"in-{run.pk}"],
        )
        return bool(cursor.fetchone()[0])


def test_frozen_worker_inside_a_transaction_leads_to_one_booking(
    lab: Lab,
) -> None:
    """The server ends the transaction of a process that no longer continues it."""
    frozen = lab.worker("-P", "solo", **BOUNDED)
    run = functions.pausing_booker.enqueue()
    until(lambda: booking(run), "the transaction to be open", lab)
    frozen.signal(signal.SIGSTOP)
    lab.beat()
    lab.worker("-P", "solo", **BOUNDED)
    until(lambda: completed(run), "another to book", lab)
    frozen.signal(signal.SIGCONT)
    again = [functions.five_steps.enqueue() for _ in range(6)]
    until(lambda: completed(*again), "both to go on", lab)
    until(
        lambda: "has taken it over or ended it" in frozen.text(),
        "the worker to notice",
        lab,
    )
    assert Account.objects.get(name="ledger").balance == 1
    assert Effect.objects.filter(run=str(run.pk), label="ledger").count() == 1


def test_workers_frozen_past_their_leases_overwrite_nothing(lab: Lab) -> None:
    # Workers are frozen all the time; no run may fail because of that.
    often = {"LAB_LEASE_DURATION": "1s", "LAB_MAX_CRASHES": "100", **BOUNDED}
    workers = [lab.worker("-P", "solo", **often) for _ in range(2)]
    lab.beat(**often)
    runs = [functions.patient.enqueue() for _ in range(6)]
    begun = Effect.objects.filter(booked__isnull=True)
    for _ in range(6):
        count = begun.count()
        until(lambda n=count: begun.count() > n or completed(*runs), "a body", lab)
        last = begun.latest("pk")
        (frozen,) = [worker for worker in workers if worker.pid == last.pid]
        frozen.signal(signal.SIGSTOP)
        # When the first worker continues, another is in the middle of the same step.
        again = Effect.objects.filter(run=last.run, pk__gt=last.pk).exclude(
            pid=frozen.pid
        )
        over = Run.objects.filter(pk=last.run, status="completed")
        until(lambda a=again, o=over: a.exists() or o.exists(), "the other", lab)
        frozen.signal(signal.SIGCONT)
    until(lambda: completed(*runs), "all runs to end", lab)
    assert Run.objects.filter(claim_count__gt=1).exists(), "no lease has expired"
    assert Account.objects.get(name="ledger").balance == 30


#: Where the worker of a child dies before its parent learns the result.
ENDS = ("finish.ended", "finish.written", "finish.committed")


def test_parent_receives_the_end_of_a_child_once_when_its_worker_dies(
    lab: Lab,
) -> None:
    lab.beat()
    runs = []
    for point in ENDS:
        armed = f"{point}[lab.helper]=kill"
        doomed = lab.worker("-P", "solo", DURABLE_JOBS_FAILPOINTS=armed)
        runs.append(functions.mixed.enqueue())
        assert doomed.ended() == -signal.SIGKILL, point
    lab.worker("-P", "solo")
    until(lambda: completed(*runs), "the parents to end", lab)
    for run in runs:
        child = Run.objects.get(parent=run)
        assert labels(child) == {"help": 1}
        assert Step.objects.get(run=run, name="help").output == "help"


def test_cron_fires_each_time_once_with_two_beats_of_which_one_is_frozen(
    lab: Lab,
) -> None:
    lab.worker("-P", "prefork", "-c", "2", LAB_CRON="1")
    beats = [lab.beat(), lab.beat()]
    rows = Schedule.objects.filter(function="lab.minutely")
    until(rows.exists, "the schedule", lab)
    begun = clock.now()
    long_ago = begun.replace(second=0, microsecond=0) - timedelta(hours=2)
    rows.update(next_occurrence=long_ago, due_at=long_ago)
    fired = Run.objects.filter(function="lab.minutely")
    for number in range(4):
        beats[number % 2].signal(signal.SIGSTOP)
        ticks = functions.sleeper.enqueue({"seconds": 0.6})
        until(lambda ticks=ticks: ended(ticks), "the other beat to tick", lab)
        beats[number % 2].signal(signal.SIGCONT)
    until(lambda: rows.get().due_at > begun and completed(*fired), "all times", lab)
    slots = [run.data["scheduled_at"] for run in fired]
    assert len(slots) == len(set(slots))
    assert len(slots) >= 120
