"""The file-based broker of the demo: messages are added and removed atomically."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Yield a connection to a broker in an empty directory."""
    options = {"folder": str(tmp_path), "polling_interval": 0.01}
    with Connection(
        transport="project.demo.broker:Transport", transport_options=options
    ) as made:
        yield made


def test_messages_arrive_in_order_of_sending(connection):
    with connection.SimpleQueue("a") as one, connection.SimpleQueue("b") as other:
        for number in range(20):
            one.put(number)
        other.put("else")
        assert [one.get_nowait().payload for _ in range(20)] == list(range(20))
        assert other.get_nowait().payload == "else"
        with pytest.raises(one.Empty):
            one.get_nowait()


def test_messages_reach_another_connection(connection, tmp_path):
    with connection.SimpleQueue("a") as queue:
        queue.put("hello")
    second = connection.clone()
    with second.SimpleQueue("a") as queue:
        assert queue.qsize() == 1
        assert queue.get_nowait().payload == "hello"
        assert queue.qsize() == 0
    second.release()


def test_queue_can_be_purged(connection):
    with connection.SimpleQueue("a") as queue:
        queue.put(1)
        queue.put(2)
        assert queue.clear() == 2
        assert queue.qsize() == 0
