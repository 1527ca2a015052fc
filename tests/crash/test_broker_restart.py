"""The broker freezes, dies and returns while workers hold unacknowledged messages."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu import Connection, Queue
from kombu.transport import redis

from durable_jobs.worker.celery_app import WORK
from durable_jobs.worker.unacknowledged import skip_impossible_restores
from tests.lab import durable as functions
from tests.lab.brokers import own_broker, publish
from tests.lab.models import Gate
from tests.lab.processes import Lab, until
from tests.lab.watching import completed, labels

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]

#: Seconds for which the broker is frozen before it dies, and then absent.
SILENCE = 3.0


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_worker_with_unacknowledged_messages_survives_broker_restarts(
    lab: Lab, pool: str
) -> None:
    """Its one process is busy, so messages wait in its buffer of four.

    A worker with a full buffer does not read from the broker. The worker notices the
    restart only when it acknowledges.
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


@pytest.fixture
def kombu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yield kombu unprotected, and restore it after the test."""
    own = inspect.unwrap(redis.QoS.restore_unacked)
    monkeypatch.setattr(redis.QoS, "restore_unacked", own)


@pytest.fixture
def lost(kombu: None) -> Iterator[Connection]:
    """Yield a connection with an unacknowledged message that has lost its address.

    kombu brings a connection into this state when a timeout interrupts its cleanup.
    """
    with own_broker() as broker:
        connection, received = Connection(broker.url), []
        queue = Queue("unacknowledged")
        connection.Producer().publish({}, routing_key=queue.name, declare=[queue])
        channel: Any = connection.default_channel
        consumer = connection.Consumer(
            [queue], callbacks=[lambda body, message: received.append(message)]
        )
        consumer.consume()
        while not received:
            connection.drain_events(timeout=10)
        assert len(channel.qos._delivered) == 1
        connection._do_close_transport()
        yield connection
        with Connection(broker.url) as other:
            kept: Any = other.default_channel
            assert kept.client.hlen("unacked") == 1, "Redis still has the message"


def test_kombu_raises_for_a_lost_connection_with_unacknowledged_messages(
    lost: Connection,
) -> None:
    """This is why the protection exists. If it fails, kombu may not need it."""
    with pytest.raises(AttributeError, match="hostname"):
        lost.close()


def test_lost_connection_closes_and_leaves_its_messages_in_redis(
    lost: Connection,
) -> None:
    skip_impossible_restores(redis.QoS)
    lost.close()


@pytest.mark.usefixtures("kombu")
def test_messages_of_a_living_connection_are_put_back() -> None:
    skip_impossible_restores(redis.QoS)
    with own_broker() as broker, Connection(broker.url) as connection:
        received: list[Any] = []
        queue = Queue("unacknowledged")
        connection.Producer().publish({}, routing_key=queue.name, declare=[queue])
        channel: Any = connection.channel()
        consumer = connection.Consumer(
            [queue],
            channel=channel,
            callbacks=[lambda body, message: received.append(message)],
        )
        consumer.consume()
        while not received:
            connection.drain_events(timeout=10)
        channel.close()
        client: Any = connection.default_channel
        assert client.client.llen("unacknowledged") == 1
        assert client.client.hlen("unacked") == 0
