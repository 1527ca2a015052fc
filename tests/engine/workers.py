"""Serve runs as a worker does, with branches in threads, and observe them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from django.db import connection

from durable_jobs import durable, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run
from durable_jobs.worker.queue_loop import drain_queue

#: Seconds in which a prompt effect must be visible.
LONG = 30


class Deaf:
    """Receives no wake-ups: these tests serve explicitly."""

    manual_clock = True

    def notify(self, queue: str, work: int) -> None:
        """Do nothing."""

    def notify_at(self, moment: datetime, queue: str) -> None:
        """Do nothing."""

    def run_pending(self) -> bool:
        """Do nothing."""
        return False


@contextmanager
def apart() -> Iterator[None]:
    """Isolate the test's declarations, and check that no branch thread is left."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer: threads are tested on PostgreSQL")
    before = set(threading.enumerate())
    with registry.temporary(), notifier.using(Deaf()):
        yield
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith(("branch", "step")):
            thread.join(LONG)
            assert not thread.is_alive(), f"{thread.name} is left"


def served(body: Callable[..., Any], **options: Any) -> Run:
    """Start a function, serve its queue as a worker does, and return its run."""
    options = {"retries": 0, **options}
    function = durable.function(id=f"tests.{body.__name__}", **options)(body)
    run: Run = function.enqueue()
    while drain_queue("default"):
        pass
    run.refresh_from_db()
    return run


class Crowd:
    """Counts the threads that are inside at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1


def backend() -> int:
    """Return the server process of this thread's connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def served_by(pids: list[int]) -> list[int]:
    """Return which of the server processes still serve a connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE pid = ANY(%s)", [pids])
        return [row[0] for row in cursor.fetchall()]
