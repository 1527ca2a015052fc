"""The broker freezes, dies and returns while workers hold unacknowledged messages."""

from __future__ import annotations

import time

import pytest

from durable_jobs.worker.celery_tasks import WORK
from tests.lab import durable as functions
from tests.lab.brokers import own_broker, publish
from tests.lab.models import Gate
from tests.lab.processes import Lab, until
from tests.lab.watching import completed, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

#: Seconds for which the broker answers nothing before it dies, and then is away.
SILENCE = 3.0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_with_unacknowledged_messages_survives_broker_restarts(
    lab: Lab, pool: str
) -> None:
    """Its one process is busy, so messages wait in its buffer of four.

    A worker with a full buffer does not read from the broker and learns of its end
    only when it acknowledges.
    """
    with own_broker() as broker:
        worker = lab.worker("-P", pool, "-c", "1", BROKER_URL=broker.url)
        beat = lab.beat(BROKER_URL=broker.url)
        for messages in (1, 6):
            name = f"g{messages}"
            busy = functions.gated.enqueue({"limit": name})
            until(
                lambda busy=busy, name=name: labels(busy)[f"{name}:begin"],
                "the body to begin",
                lab,
            )
            publish(broker.url, [(WORK, ["default", 0.0])] * messages)
            time.sleep(1)
            broker.freeze()
            waiting = [functions.mixed.enqueue() for _ in range(3)]
            time.sleep(SILENCE)
            broker.stop()
            time.sleep(SILENCE)
            broker.start()
            Gate.objects.create(name=name)
            until(
                lambda busy=busy, waiting=waiting: completed(busy, *waiting),
                "all runs to end",
                lab,
            )
        assert (worker.alive, beat.alive) == (True, True)
        assert worker.terminate() == 0, worker.text()
        assert "AttributeError" not in worker.text(), worker.text()
