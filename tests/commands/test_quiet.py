"""Celery logs our own messages below INFO."""

from __future__ import annotations

import re

import pytest

from durable_jobs.worker.celery_tasks import tick, work
from tests.lab import durable as functions
from tests.lab.processes import lab, until
from tests.lab.watching import completed


def test_tasks_send_no_events_and_no_results() -> None:
    for task in (work, tick):
        assert task.send_events is False
        assert task.ignore_result is True


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_worker_and_beat_at_info_write_no_line_about_our_messages(
    process_environment: dict[str, str], pool: str
) -> None:
    with lab(process_environment) as made:
        worker, beat = made.worker("-P", pool, "-c", "1"), made.beat()
        run = functions.sleeper.enqueue({"seconds": 1})
        until(lambda: completed(run), "the run to end", made)
        routine = re.compile(
            r"durable_jobs\..*(received|succeeded)|due task durable_jobs"
        )
        assert not routine.findall(worker.text() + beat.text())
