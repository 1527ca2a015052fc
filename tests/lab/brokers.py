"""A broker of the lab's own, which tests may stop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Connection

from tests.lab.databases import directory
from tests.services.valkey import Valkey


@contextmanager
def own_broker() -> Iterator[Valkey]:
    """Run a broker for these tests alone."""
    with directory() as base:
        server = Valkey(base)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def flush(url: str) -> int:
    """Delete all messages; return how many keys there were."""
    with Connection(url) as broker:
        channel: Any = broker.default_channel
        count = channel.client.dbsize()
        channel.client.flushdb()
        return int(count)


def publish(url: str, messages: list[tuple[str, list[Any]]]) -> None:
    """Publish raw Celery messages: a task's name and its arguments."""
    from celery import Celery

    with (
        Celery(broker=url, set_as_current=False) as app,
        app.connection_for_write() as connection,
    ):
        for name, arguments in messages:
            app.send_task(name, arguments, queue="default", connection=connection)
