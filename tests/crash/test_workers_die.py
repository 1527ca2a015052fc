"""Workers and beats are killed and frozen where it hurts: between two commits."""

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


def booking(run: Run) -> bool:
    """Tell whether the server has the transaction of a run's slow booking open."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
            " AND state = 'idle in transaction'",
            [f"in-{run.pk}"],
        )
        return bool(cursor.fetchone()[0])


def test_a_worker_frozen_inside_a_transaction_books_once_whoever_does(
    lab: Lab,
) -> None:
    """The server ends the transaction that nobody goes on with."""
    bounded = {"PGOPTIONS": "-c idle_in_transaction_session_timeout=3s"}
    frozen = lab.worker("-P", "solo", **bounded)
    run = functions.pausing_booker.enqueue()
    until(lambda: booking(run), "the transaction to be open", lab)
    frozen.signal(signal.SIGSTOP)
    lab.beat()
    lab.worker("-P", "solo", **bounded)
    until(lambda: completed(run), "another to book", lab)
    frozen.signal(signal.SIGCONT)
    again = [functions.five_steps.enqueue() for _ in range(6)]
    until(lambda: completed(*again), "both to go on", lab)
    until(lambda: "left to them" in frozen.text(), "it to notice", lab)
    assert Account.objects.get(name="ledger").balance == 1
    assert Effect.objects.filter(run=str(run.pk), label="ledger").count() == 1


def test_workers_frozen_past_their_leases_overwrite_nothing(lab: Lab) -> None:
    workers = [lab.worker("-P", "solo", LAB_LEASE="1s") for _ in range(2)]
    lab.beat(LAB_LEASE="1s")
    runs = [functions.patient.enqueue() for _ in range(6)]
    until(lambda: Effect.objects.count() > 2, "the runs to begin", lab)
    for number in range(6):
        frozen = workers[number % 2]
        frozen.signal(signal.SIGSTOP)
        held = Run.objects.filter(worker__endswith=f":{frozen.pid}", status="running")
        until(lambda held=held: not held.exists(), "its runs to be taken", lab)
        frozen.signal(signal.SIGCONT)
    until(lambda: completed(*runs), "all runs to end", lab)
    assert Run.objects.filter(claims__gt=1).exists(), "no lease has run out"
    assert Account.objects.get(name="ledger").balance == 30


#: Where the worker of a child dies, and with it the news for its parent.
ENDS = ("finish.ended", "finish.written", "finish.committed")


@pytest.mark.parametrize("point", ENDS)
def test_a_parent_hears_once_of_a_child_whose_worker_died_at_its_end(
    lab: Lab, point: str
) -> None:
    run = functions.mixed.enqueue()
    armed = f"{point}[lab.helper]=kill"
    doomed = lab.worker("-P", "solo", DURABLE_JOBS_FAILPOINTS=armed)
    lab.beat()
    assert doomed.ended() == -signal.SIGKILL
    lab.worker("-P", "solo")
    until(lambda: completed(run), "the parent to end", lab)
    child = Run.objects.get(parent=run)
    assert labels(child) == {"help": 1}
    assert Step.objects.get(run=run, name="help").output == "help"


def test_two_beats_one_of_them_frozen_fire_each_time_of_a_cron_once(lab: Lab) -> None:
    lab.worker("-P", "prefork", "-c", "2", LAB_CRON="1")
    beats = [lab.beat(), lab.beat()]
    rows = Schedule.objects.filter(function="lab.minutely")
    until(rows.exists, "the schedule", lab)
    begun = clock.now()
    rows.update(
        next_at=clock.now().replace(second=0, microsecond=0) - timedelta(hours=2)
    )
    fired = Run.objects.filter(function="lab.minutely")
    for number in range(4):
        beats[number % 2].signal(signal.SIGSTOP)
        ticks = functions.sleeper.enqueue({"seconds": 0.6})
        until(lambda ticks=ticks: ended(ticks), "the other beat to tick", lab)
        beats[number % 2].signal(signal.SIGCONT)
    until(lambda: rows.get().next_at > begun and completed(*fired), "all times", lab)
    slots = [run.data["scheduled_at"] for run in fired]
    assert len(slots) == len(set(slots))
    assert len(slots) >= 120
