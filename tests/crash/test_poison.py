"""Bodies that kill their process, hang or return garbage harm only their own run."""

from __future__ import annotations

import pytest

from durable_jobs.models import Run
from tests.lab import durable as functions
from tests.lab.models import Effect
from tests.lab.processes import Lab, until
from tests.lab.watching import completed, ended, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

SHORT = {"LAB_LEASE_DURATION": "1s", "LAB_MAX_CRASHES": "2"}


def test_run_that_kills_its_workers_ends_and_its_neighbours_do_well(
    lab: Lab,
) -> None:
    poisons = [functions.poison.enqueue({"how": how}) for how in ("exit", "segfault")]
    # Claimed in one batch with the poison, several times.
    neighbours = [functions.quick.enqueue() for _ in range(12)]
    lab.beat(**SHORT)
    worker = lab.worker("-P", "prefork", "-c", "1", **SHORT)
    until(lambda: ended(*poisons), "the poisonous run to fail", lab)
    for run in poisons:
        run.refresh_from_db()
        assert run.status == "failed"
        assert run.error["type"] == "WorkerLost"
        # Its worker's first death may have been caused by a neighbour in the same
        # batch.
        assert 1 <= labels(run)[run.data["how"]] <= 2
    until(lambda: completed(*neighbours), "the neighbours to end", lab)
    assert worker.alive


def test_run_that_kills_its_workers_can_be_cancelled(lab: Lab) -> None:
    run = functions.poison.enqueue({"how": "kill"})
    # Two processes: Celery needs seconds to notice that one has died.
    lab.worker("-P", "prefork", "-c", "2", LAB_LEASE_DURATION="1s")
    lab.beat(LAB_LEASE_DURATION="1s")
    until(lambda: labels(run)["kill"] >= 2, "two workers to die", lab)
    assert run.cancel("enough")
    said = labels(run)["kill"]
    after = functions.quick.enqueue()
    until(lambda: completed(after), "another run to end", lab)
    assert labels(run)["kill"] <= said + 1
    run.refresh_from_db()
    assert (run.status, run.reason) == ("cancelled", "enough")


def test_body_that_hangs_or_cannot_be_stored_ends_its_step_only(lab: Lab) -> None:
    worker = lab.worker("-P", "prefork", "-c", "1")
    hung, refused = functions.hanging.enqueue(), functions.unstorable.enqueue()
    out_of_memory = functions.poison.enqueue({"how": "memory"})
    after = functions.quick.enqueue()
    until(lambda: ended(hung, refused, out_of_memory), "all of them to end", lab)
    until(lambda: completed(after), "the run after them to end", lab)
    assert Run.objects.get(pk=hung.pk).result() == "went on"
    refusal = Run.objects.get(pk=refused.pk)
    assert (refusal.status, refusal.error["type"]) == ("failed", "PayloadError")
    assert labels(refused) == {"give": 1}
    memory = Run.objects.get(pk=out_of_memory.pk)
    assert (memory.status, memory.error["type"]) == ("failed", "MemoryError")
    assert len(set(Effect.objects.values_list("pid", flat=True))) == 1
    assert worker.alive


@pytest.mark.parametrize("pool", ["threads", "prefork"])
def test_worker_whose_body_left_a_transaction_open_serves_the_next_runs(
    lab: Lab, pool: str
) -> None:
    worker = lab.worker("-P", pool, "-c", "1")
    lab.beat()
    for how in ("begin", "autocommit", "atomic"):
        first = functions.leaving_open.enqueue({"how": how})
        until(lambda run=first: ended(run), "the run to end", lab)
        first.refresh_from_db()
        assert (first.status, first.error["type"]) == (
            "failed",
            "TransactionStateError",
        )
        rest = [functions.quick.enqueue() for _ in range(3)]
        until(lambda runs=rest: completed(*runs), "the runs after it to end", lab)
    assert not Effect.objects.filter(label="never committed").exists()
    assert worker.alive
