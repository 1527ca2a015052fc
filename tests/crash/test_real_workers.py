"""Real workers are killed, stopped and flushed; every run still ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from datetime import timedelta

import pytest
from django.db import transaction

from durable_jobs import clock, durable, notifier
from durable_jobs.models import Run, Step
from tests.crash.conftest import flush_broker
from tests.lab import durable as functions
from tests.lab.models import Account, Effect, Gate
from tests.lab.processes import ROOT, Lab, until
from tests.lab.watching import ended, labels

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(180),
]


#: The lease of a worker that is about to die: short, so that takeover is quick.
DOOMED = {"LAB_LEASE_DURATION": "500ms"}


def test_worker_killed_inside_a_step_loses_only_that_attempt(lab: Lab) -> None:
    first = lab.worker(**DOOMED)
    run = functions.gated.enqueue({"limit": "g"})
    until(lambda: labels(run)["g:begin"], "the body to begin", lab)
    first.kill()
    Gate.objects.create(name="g")
    lab.worker()
    lab.beat()
    until(lambda: ended(run), "the run to end", lab)
    run.refresh_from_db()
    assert run.result() == "done"
    assert labels(run) == {"one": 1, "g:begin": 2, "g:end": 1, "last": 1}
    assert Account.objects.get(name="ledger").balance == 1


@pytest.mark.parametrize("place", ["before", "body", "after"])
def test_worker_killed_around_a_checkpoint_never_repeats_a_recorded_step(
    lab: Lab, place: str
) -> None:
    run = functions.five_steps.enqueue()
    points = f"step.{place}[three]=kill"
    doomed = lab.worker("-P", "solo", DURABLE_JOBS_FAILPOINTS=points, **DOOMED)
    until(lambda: "three" in labels(run) or place == "before", "step three", lab)
    doomed._process.wait(60)
    assert doomed._process.returncode == -signal.SIGKILL
    lab.worker()
    lab.beat()
    until(lambda: ended(run), "the run to end", lab)
    run.refresh_from_db()
    assert run.result() == ["one", "two", "three", "four", "five"]
    repeated = 2 if place == "body" else 1
    assert labels(run) == {"one": 1, "two": 1, "three": repeated, "four": 1, "five": 1}
    assert Step.objects.filter(run=run).count() == 5


@pytest.mark.parametrize("place", ["before", "body", "after"])
def test_atomic_steps_book_exactly_once_wherever_the_worker_is_killed(
    lab: Lab, place: str
) -> None:
    run = functions.booker.enqueue()
    points = f"step.{place}[book 2]=kill"
    doomed = lab.worker("-P", "solo", DURABLE_JOBS_FAILPOINTS=points, **DOOMED)
    doomed._process.wait(60)
    assert doomed._process.returncode == -signal.SIGKILL
    lab.worker()
    lab.beat()
    until(lambda: ended(run), "the run to end", lab)
    assert Account.objects.get(name="ledger").balance == 5


def test_worker_killed_while_a_run_sleeps_changes_nothing(lab: Lab) -> None:
    first = lab.worker()
    run = functions.sleeper.enqueue({"seconds": 2})
    until(lambda: Run.objects.get(pk=run.pk).status == "waiting", "the sleep", lab)
    first.kill()
    lab.worker()
    lab.beat()
    until(lambda: ended(run), "the run to end", lab)
    assert labels(run) == {"before": 1, "after": 1}
    nap = Step.objects.get(run=run, name="nap")
    after = Effect.objects.get(run=str(run.pk), label="after")
    assert nap.started_at is not None
    assert (after.at - nap.started_at).total_seconds() >= 2, "woken too early"


def test_flushed_broker_loses_no_queued_run(lab: Lab) -> None:
    with transaction.atomic():
        runs = [functions.five_steps.enqueue() for _ in range(100)]
    flush_broker(lab.environment)
    lab.worker("-P", "prefork", "-c", "2")
    lab.beat()
    until(lambda: ended(*runs), "all runs to end", lab)
    assert Run.objects.filter(status="completed").count() == 100
    assert Effect.objects.count() == 500


SEND = """
import django
django.setup()
from durable_jobs import durable
from tests.lab.durable import five_steps
durable.send("lab/ping")
print(five_steps.enqueue().pk)
"""


def test_unavailable_broker_does_not_refuse_work(lab: Lab) -> None:
    away = {**lab.environment, "BROKER_URL": "redis+socket:///nowhere.sock"}
    sent = subprocess.run(
        [sys.executable, "-c", SEND],
        env=away,
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert "Could not notify" in sent.stderr
    run = Run.objects.get(pk=sent.stdout.strip())
    lab.worker()
    lab.beat()
    until(lambda: ended(run) and Effect.objects.filter(label="ping").exists(), "both")


def test_two_beats_and_duplicate_messages_do_nothing_twice(lab: Lab) -> None:
    lab.worker("-P", "prefork", "-c", "2")
    lab.beat()
    lab.beat()
    runs = [functions.sleeper.enqueue({"seconds": 1}) for _ in range(20)]
    for _ in range(50):
        notifier.notify_now("default")
    until(lambda: ended(*runs), "all runs to end", lab)
    for run in runs:
        assert labels(run) == {"before": 1, "after": 1}


def test_worker_stopped_past_its_lease_cannot_write_later(
    lab: Lab,
) -> None:
    frozen = lab.worker("-P", "solo")
    run = functions.gated.enqueue({"limit": "g"})
    until(lambda: labels(run)["g:begin"] == 1, "the body to begin", lab)
    frozen.signal(signal.SIGSTOP)
    lab.beat()
    lab.worker("-P", "solo")
    until(lambda: labels(run)["g:begin"] == 2, "another worker to take over", lab)
    frozen.signal(signal.SIGCONT)
    Gate.objects.create(name="g")
    until(lambda: ended(run), "the run to end", lab)
    until(lambda: labels(run)["g:end"] == 2, "the first worker to end its body", lab)
    after = functions.five_steps.enqueue()
    until(lambda: ended(after), "the workers to go on", lab)
    assert Account.objects.get(name="ledger").balance == 1
    assert labels(run) == {"one": 1, "g:begin": 2, "g:end": 2, "last": 1}
    assert Step.objects.filter(run=run).count() == 4


def test_rolled_back_send_starts_nothing(lab: Lab) -> None:
    lab.worker()
    lab.beat()
    with transaction.atomic():
        durable.send("lab/ping")
        transaction.set_rollback(True)
    with transaction.atomic():
        durable.send("lab/ping")
        assert not Effect.objects.exists()
    until(lambda: Effect.objects.filter(label="ping").exists(), "the ping", lab)
    assert Run.objects.filter(function="lab.pinged").count() == 1


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_worker_that_shuts_down_releases_its_run(lab: Lab, pool: str) -> None:
    leaving = lab.worker("-P", pool, "-c", "1")
    run = functions.endless.enqueue()
    until(lambda: len(labels(run)) > 20, "some steps", lab)
    leaving.terminate()
    handed = Run.objects.get(pk=run.pk)
    assert handed.status == "queued", leaving.text()
    assert handed.crash_count == 0
    lab.worker("-P", pool, "-c", "1")
    lab.beat()
    until(lambda: ended(run), "the run to end", lab)
    counts = labels(run)
    assert len(counts) == 400
    assert set(counts.values()) == {1}


def test_event_resumes_each_waiting_run_exactly_once(lab: Lab) -> None:
    lab.worker("-P", "prefork", "-c", "2")
    lab.beat()
    runs = [functions.waiter.enqueue({"key": f"k{n}"}) for n in range(30)]
    waiting = Run.objects.filter(status="waiting")
    until(lambda: waiting.count() == 30, "all to wait", lab)
    for number in range(30):
        durable.send("lab/go", {"key": f"k{number}", "from": str(number)})
    until(lambda: ended(*runs), "all runs to end", lab)
    for number, run in enumerate(runs):
        run.refresh_from_db()
        assert run.result() == str(number)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_busy_worker_checks_only_the_other_queues_that_it_consumes(
    lab: Lab, pool: str
) -> None:
    """A wake-up for a queue that the worker does not consume has no effect."""
    own = ("-Q", "default,apart", "-P", pool, "-c", "1")
    lab.worker(*own, LAB_DRAIN_TIME="60s")
    pins = [functions.pinned.enqueue({"queue": "pinned"}) for _ in range(3)]
    pinned = Run.objects.filter(queue="pinned", status="queued")
    until(lambda: pinned.count() == len(pins), "wake-ups for the steps", lab)
    backlog = [functions.five_steps.enqueue() for _ in range(300)]
    waiting = Run.objects.filter(pk__in=[run.pk for run in backlog], status="queued")
    until(lambda: waiting.count() < len(backlog) - 10, "the worker to work", lab)
    with transaction.atomic():
        run = functions.pinned.enqueue({"queue": "apart"})
        Run.objects.filter(pk=run.pk).update(queue="apart")
    until(lambda: ended(run), "the run of its other queue to end", lab)
    assert waiting.exists(), "the wake-up waits behind a drain of a minute"
    until(lambda: ended(*backlog), "the backlog to end", lab)
    assert pinned.count() == len(pins), "the queue of another worker"
    lab.worker("-P", "solo", "-Q", "pinned")
    until(lambda: ended(*pins), "their own worker to take them", lab)


def test_runs_sent_one_by_one_all_end_without_a_beat(lab: Lab) -> None:
    lab.worker("-P", "threads", "-c", "2")
    runs = [functions.five_steps.enqueue() for _ in range(100)]
    until(lambda: ended(*runs), "all runs to end without a beat", lab)
    assert Run.objects.filter(status="completed").count() == 100


def test_long_runs_that_are_sent_at_once_are_executed_side_by_side(lab: Lab) -> None:
    """A worker that knows a run takes long claims one, and wakes another worker."""
    lab.worker("-P", "threads", "-c", "8")
    first = functions.gated.enqueue({"limit": "first"})
    until(lambda: labels(first)["first:begin"], "the first body", lab)
    began = Effect.objects.get(label="first:begin").at
    late = began + timedelta(seconds=0.3)
    until(lambda: clock.now() > late, "the process to expect long runs", lab)
    Gate.objects.create(name="first")
    until(lambda: ended(first), "the first run to end", lab)
    with transaction.atomic():
        runs = [functions.gated.enqueue({"limit": "g"}) for _ in range(8)]
    begun = Effect.objects.filter(label="g:begin")
    until(lambda: begun.count() == 8, "eight concurrent bodies", lab)
    Gate.objects.create(name="g")
    until(lambda: ended(*runs), "the runs to end", lab)
