"""Celery's time limits may end a body, but never break the engine."""

from __future__ import annotations

import pytest

from durable_jobs.models import Run
from tests.lab import durable as functions
from tests.lab.processes import Lab, until
from tests.lab.watching import completed, ended, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

SOFT = ("-P", "prefork", "-c", "1", "--soft-time-limit", "2")


def test_run_that_exceeds_the_limit_of_its_task_is_requeued(
    lab: Lab,
) -> None:
    runs = [functions.many_short_steps.enqueue() for _ in range(2)]
    lab.worker(*SOFT)
    lab.beat()
    until(lambda: completed(*runs), "the runs to end", lab)
    for run in Run.objects.all():
        assert run.result() == "done"
        assert run.claim_count > 1
        assert not run.attempts.exists()
        assert all(count == 1 for count in labels(run).values())


def test_body_that_takes_longer_than_the_limit_is_a_timeout(lab: Lab) -> None:
    worker = lab.worker(*SOFT)
    lab.beat()
    hung = functions.hanging_for_the_limit.enqueue()
    until(lambda: ended(hung), "the body to be ended", lab)
    hung.refresh_from_db()
    assert (hung.status, hung.error["type"]) == ("failed", "StepTimeout")
    after = functions.quick.enqueue()
    until(lambda: completed(after), "another run to end", lab)
    assert worker.alive
