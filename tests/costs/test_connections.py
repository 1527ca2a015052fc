"""Connections outlive a wake-up, as long as ``CONN_MAX_AGE`` allows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from durable_jobs.worker import connections
from durable_jobs.worker.connections import persistent

pytestmark = pytest.mark.usefixtures("postgres", "ours")


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin with no connection, and let connections live a minute."""
    forget()
    connection.close()
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 60)
    yield
    forget()


def forget() -> None:
    """Close the saved connections."""
    while connections._saved.by_alias:
        connections._saved.by_alias.popitem()[1].raw.close()


def backend() -> int:
    """Return the server process of this thread's connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def wake_up() -> int:
    """Execute a wake-up, with Celery closing all connections around it."""
    connection.close()
    with persistent():
        process = backend()
    connection.close()
    return process


def test_wake_up_reuses_the_connection_of_the_last():
    assert wake_up() == wake_up() == wake_up()


def test_connection_between_wake_ups_is_not_shared():
    first = wake_up()
    other = backend()
    assert other != first
    assert wake_up() == first


def test_connections_close_if_the_project_keeps_none(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    assert wake_up() != wake_up()


def test_connection_that_is_too_old_is_opened_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", -1)
    assert wake_up() != wake_up()


def test_dead_connection_is_detected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_HEALTH_CHECKS", True)
    monkeypatch.setattr(connections, "FRESH", 0.0)
    first = wake_up()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    assert wake_up() != first


def test_connection_inside_a_transaction_is_left_open():
    with transaction.atomic(), persistent():
        process = backend()
    assert backend() == process
