"""A worker with invalid settings is refused at its start, with or without checks."""

from __future__ import annotations

import pytest

from tests.lab.processes import lab, until

NAIVE = {"CELERY_SKIP_CHECKS": "1", "LAB_USE_TZ": "0"}


@pytest.mark.django_db(transaction=True)
def test_worker_without_use_tz_is_refused(process_environment: dict[str, str]) -> None:
    with lab(process_environment) as made:
        worker = made.start(["worker", "-P", "solo", "-l", "INFO"], NAIVE)
        assert worker.ended() == 1
        assert "durable_jobs needs USE_TZ = True" in worker.text()
        assert "Traceback" not in worker.text()


@pytest.mark.django_db(transaction=True)
def test_worker_without_use_tz_starts_for_other_queues(
    process_environment: dict[str, str],
) -> None:
    with lab(process_environment) as made:
        worker = made.start(
            ["worker", "-P", "solo", "-l", "INFO", "-Q", "other"], NAIVE
        )
        until(lambda: " ready." in worker.text(), "it to start", made)
        assert worker.alive
