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


def bell() -> int:
    """Execute a wake-up, with Celery closing all connections around it."""
    connection.close()
    with persistent():
        process = backend()
    connection.close()
    return process


def test_the_next_bell_goes_on_with_the_connection_of_the_last():
    assert bell() == bell() == bell()


def test_between_bells_the_connection_is_nobody_elses():
    first = bell()
    other = backend()
    assert other != first
    assert bell() == first


def test_a_host_that_keeps_no_connections_has_none_kept(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 0)
    assert bell() != bell()


def test_a_connection_that_is_too_old_is_opened_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", -1)
    assert bell() != bell()


def test_a_connection_that_died_meanwhile_is_found_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_HEALTH_CHECKS", True)
    monkeypatch.setattr(connections, "FRESH", 0.0)
    first = bell()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [first])
    assert bell() != first


def test_a_connection_inside_a_transaction_is_left_where_it_is():
    with transaction.atomic(), persistent():
        process = backend()
    assert backend() == process
