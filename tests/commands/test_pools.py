"""Worker pools that cannot execute runs are refused; others start."""

from __future__ import annotations

import pytest

from tests.lab.processes import lab, until

GREEN = {"CELERY_CUSTOM_WORKER_POOL": "tests.lab.green:TaskPool"}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("queues", [[], ["-Q", "default"], ["-Q", "other,default"]])
def test_green_pool_is_refused_for_our_queues(
    process_environment: dict[str, str], queues: list[str]
) -> None:
    with lab(process_environment) as made:
        arguments = ["worker", "-P", "custom", "-l", "INFO", *queues]
        worker = made.start(arguments, GREEN)
        assert worker.ended() == 1
        assert (
            "durable_jobs does not work in the green pool, and this worker consumes "
            "default. Use --pool prefork, threads or solo" in worker.text()
        )
        assert "Traceback" not in worker.text()


@pytest.mark.django_db(transaction=True)
def test_green_pool_starts_for_other_queues(
    process_environment: dict[str, str],
) -> None:
    with lab(process_environment) as made:
        worker = made.start(
            ["worker", "-P", "custom", "-l", "INFO", "-Q", "other"], GREEN
        )
        until(lambda: " ready." in worker.text(), "it to start", made)
        assert worker.alive
