"""Fixtures of the tests of costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from durable_jobs import clock, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.store.postgres import prepared
from durable_jobs.worker import claimed_batch, queue_loop
from durable_jobs.worker.background import background_thread


class Silent:
    """A notifier without workers: the test serves explicitly."""

    manual_clock = False

    def notify(self, queue: str, work: int) -> None:
        """Do nothing."""

    def notify_at(self, moment: object, queue: str) -> None:
        """Do nothing."""

    def run_pending(self) -> bool:
        """Execute nothing."""
        return False


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behave like a worker with short runs, however busy this machine is.

    It claims many runs at once and releases none, and keeps its prepared plans.
    """
    monkeypatch.setattr(queue_loop, "SHORT_RUN", 3600.0)
    monkeypatch.setattr(claimed_batch, "PATIENCE", 3600.0)
    monkeypatch.setattr(prepared, "REPLAN", 3600.0)
    # Alarms that earlier tests of this process set would end timers here.
    monkeypatch.setattr(background_thread().alarms, "_alarms", {})


@pytest.fixture
def silence(transactional_db: None, brisk: None) -> Iterator[None]:
    """Keep runs queued until the test serves their queue.

    Only the test's own functions are registered. The lab's functions with flow control
    would add a query to every claim.
    """
    with registry.temporary(), notifier.using(Silent()):
        registry._functions = {}
        registry._index()
        yield


@pytest.fixture
def postgres(transactional_db: None) -> None:
    """Skip the test on other databases."""
    if connection.vendor != "postgresql":
        pytest.skip("tests PostgreSQL's own statements")


@pytest.fixture
def statistics(transactional_db: None) -> None:
    """Skip the test where the server does not count its statements."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            cursor.execute("SELECT count(*) FROM pg_stat_statements")
    except DatabaseError:
        pytest.skip("needs pg_stat_statements among shared_preload_libraries")


Watch = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture
def watch(transactional_db: None) -> Watch:
    """Return a context manager that collects the statements of its block.

    Unlike Django's own, it also works after a worker empties the log of queries.
    """
    clock.now()  # queries the database the first time

    @contextmanager
    def watching() -> Iterator[list[str]]:
        texts: list[str] = []

        def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            texts.append(sql)
            return execute(sql, params, many, context)

        with connection.execute_wrapper(note):
            yield texts

    return watching
