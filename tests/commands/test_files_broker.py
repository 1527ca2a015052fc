"""The demo's broker: messages are files that come and go whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """Return a connection to a broker in an empty directory."""
    options = {"folder": str(tmp_path), "polling_interval": 0.01}
    with Connection(
        transport="project.demo.broker:Transport", transport_options=options
    ) as made:
        yield made


def test_messages_come_in_the_order_in_which_they_were_sent(connection):
    with connection.SimpleQueue("a") as one, connection.SimpleQueue("b") as other:
        for number in range(20):
            one.put(number)
        other.put("else")
        assert [one.get_nowait().payload for _ in range(20)] == list(range(20))
        assert other.get_nowait().payload == "else"
        with pytest.raises(one.Empty):
            one.get_nowait()


def test_other_processes_see_them(connection, tmp_path):
    with connection.SimpleQueue("a") as queue:
        queue.put("hello")
    second = connection.clone()
    with second.SimpleQueue("a") as queue:
        assert queue.qsize() == 1
        assert queue.get_nowait().payload == "hello"
        assert queue.qsize() == 0
    second.release()


def test_a_queue_can_be_emptied(connection):
    with connection.SimpleQueue("a") as queue:
        queue.put(1)
        queue.put(2)
        assert queue.clear() == 2
        assert queue.qsize() == 0
