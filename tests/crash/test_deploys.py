"""Deploys change the code of runs in flight and replace workers under load."""

from __future__ import annotations

import pytest

from durable_jobs import clock, durable
from durable_jobs.models import Run, Step, SweepError, Wait
from tests.lab import durable as functions
from tests.lab.models import Account, Effect
from tests.lab.processes import Lab, until
from tests.lab.watching import completed, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def resting(run: Run) -> bool:
    """Return whether a run is between two of its steps."""
    return Run.objects.get(pk=run.pk).status == "waiting"


def test_run_continues_in_the_code_of_the_next_release(lab: Lab) -> None:
    """Steps were inserted, moved and removed; recorded results count."""
    first = lab.worker("-P", "solo", LAB_RELEASE="1")
    lab.beat()
    run = functions.released.enqueue()
    until(lambda: resting(run), "it to sleep", lab)
    assert first.terminate() == 0
    lab.worker("-P", "solo", LAB_RELEASE="2")
    until(lambda: completed(run), "the run to end", lab)
    assert Run.objects.get(pk=run.pk).result() == ["inserted", "one", "last"]
    assert labels(run) == {"one": 1, "taken out": 1, "inserted": 1, "last": 1}


def test_step_of_another_kind_pauses_the_run_until_the_code_is_fixed(
    lab: Lab,
) -> None:
    first = lab.worker("-P", "solo", LAB_RELEASE="1")
    lab.beat()
    run = functions.released.enqueue()
    until(lambda: resting(run), "it to sleep", lab)
    assert first.terminate() == 0
    wrong = lab.worker("-P", "solo", LAB_RELEASE="wrong")
    parked = Run.objects.filter(pk=run.pk, status="paused")
    until(parked.exists, "the run to be paused", lab)
    assert "'one' of lab.released is recorded as 'run'" in parked.get().reason
    wrong.kill()
    lab.worker("-P", "solo", LAB_RELEASE="2")
    assert parked.get().resume()
    until(lambda: completed(run), "the run to end", lab)
    assert labels(run)["one"] == 1
    assert Step.objects.filter(run=run, name="one").count() == 1


def test_workers_replaced_one_by_one_repeat_nothing(lab: Lab) -> None:
    serving = [lab.worker("-P", "prefork", "-c", "2") for _ in range(2)]
    lab.beat()
    runs = [functions.patient.enqueue() for _ in range(16)]
    until(lambda: Effect.objects.count() > 8, "the runs to begin", lab)
    for old in serving:
        under_way = Run.objects.filter(status="running").count()
        assert under_way > 0, "the worker is replaced under load"
        lab.worker("-P", "prefork", "-c", "2")
        assert old.terminate() == 0
    until(lambda: completed(*runs), "all runs to end", lab)
    # No process was killed: no attempt is a crash, and no body was called twice.
    assert all(set(labels(run).values()) == {1} for run in runs)
    assert Account.objects.get(name="ledger").balance == 80


def test_run_of_a_new_function_waits_for_a_worker_that_has_it(lab: Lab) -> None:
    """The web processes were deployed first."""
    old = lab.worker("-P", "solo", LAB_RELEASE="old")
    lab.beat()
    runs = [functions.newcomer.enqueue() for _ in range(3)]
    known = functions.patient.enqueue()
    until(lambda: completed(known), "the known run to end", lab)
    rows = Run.objects.filter(pk__in=[run.pk for run in runs])
    assert set(rows.values_list("status", "claim_count")) == {("queued", 0)}
    lab.worker("-P", "solo", LAB_RELEASE="2")
    until(lambda: completed(*runs), "the new runs to end", lab)
    assert old.alive
    assert all(labels(run) == {"one": 1, "two": 1} for run in runs)


def test_old_and_new_workers_on_one_queue_lose_and_repeat_nothing(lab: Lab) -> None:
    lab.worker("-P", "threads", "-c", "2", LAB_RELEASE="old")
    lab.worker("-P", "prefork", "-c", "2", LAB_RELEASE="2")
    lab.beat()
    new = [functions.newcomer.enqueue() for _ in range(20)]
    old = [functions.patient.enqueue() for _ in range(8)]
    until(lambda: completed(*new, *old), "all runs to end", lab)
    assert not Run.objects.filter(status="paused").exists()
    assert all(set(labels(run).values()) == {1} for run in [*new, *old])


def test_steps_that_only_a_newer_version_can_read_wait_for_its_worker(
    lab: Lab,
) -> None:
    """The old worker lacks a serialization tag and a step kind."""
    new = lab.worker("-P", "threads", "-c", "4", LAB_RELEASE="2")
    lab.beat()
    runs = [functions.exact.enqueue({"by": by}) for by in ("tag", "kind", "tag")]
    slept = Step.objects.filter(name="rest", status="sleeping")
    until(lambda: slept.count() == 3, "them to sleep", lab)
    assert new.terminate() == 0
    claims = {run.pk: Run.objects.get(pk=run.pk).claim_count for run in runs}
    old = lab.worker("-P", "prefork", "-c", "2", LAB_RELEASE="old")
    left = SweepError.objects.filter(kind="newer version")
    until(lambda: left.count() == 3, "the old worker to release them", lab)
    known = functions.patient.enqueue()
    until(lambda: completed(known), "the known run to end", lab)
    rows = Run.objects.filter(pk__in=claims, status="queued", attempt=0)
    assert dict(rows.values_list("pk", "claim_count")) == claims
    lab.worker("-P", "solo", LAB_RELEASE="2")
    until(lambda: completed(*runs), "the runs to end", lab)
    assert old.alive
    assert all(labels(run) == {"two": 1} for run in runs)
    assert [Run.objects.get(pk=run.pk).result() for run in runs] == [
        "1.5",
        "None",
        "1.5",
    ]


def test_end_of_a_new_run_at_an_old_worker_is_not_lost(lab: Lab) -> None:
    """The new code has a ``cancel_on``, a timeout and a handler for both."""
    new = lab.worker("-P", "solo", LAB_RELEASE="2")
    lab.beat()
    runs = [functions.guarded.enqueue({"number": number}) for number in (1, 2)]
    until(lambda: all(map(resting, runs)), "them to sleep", lab)
    assert new.terminate() == 0
    limit = Wait.objects.filter(run=runs[1], kind="finish_by")
    assert limit.update(due_at=clock.now(), condition={"seconds": 0}) == 1
    lab.worker("-P", "solo", LAB_RELEASE="old")
    durable.send("lab/stop", {"number": 1})
    left = SweepError.objects.filter(kind="cancellation")
    until(left.exists, "the old worker to skip the event", lab)
    timed_out = Run.objects.filter(pk=runs[1].pk, status="cancelled")
    until(timed_out.exists, "the timeout", lab)
    assert Run.objects.get(pk=runs[0].pk).status == "waiting"
    lab.worker("-P", "solo", LAB_RELEASE="2")
    done = {"one": 1, "cancelled": 1}
    until(lambda: all(labels(run) == done for run in runs), "the handlers", lab)
    assert Run.objects.get(pk=runs[0].pk).status == "cancelled"
    assert not SweepError.objects.exists()
