"""``DATABASE_URL`` and ``BROKER_URL`` become settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from celery import Celery
from django.core.exceptions import ImproperlyConfigured
from django.db import connection

from project.addresses import broker, database
from project.celery import app


def test_postgresql_on_a_socket() -> None:
    settings = database("postgresql://me:p%40ss@/shop?host=/run/pg&sslmode=disable")
    assert settings["NAME"] == "shop"
    assert settings["USER"] == "me"
    assert settings["PASSWORD"] == "p@ss"
    assert settings["HOST"] == "/run/pg"
    assert settings["PORT"] == ""
    assert settings["OPTIONS"] == {"sslmode": "disable"}


def test_postgresql_on_a_port() -> None:
    settings = database("postgres://me@db.example:6432/shop")
    assert (settings["HOST"], settings["PORT"]) == ("db.example", "6432")


def test_sqlite_file_is_tested_in_a_file_beside_it() -> None:
    settings = database("sqlite:////var/data/shop.sqlite3")
    assert settings["NAME"] == "/var/data/shop.sqlite3"
    assert settings["TEST"] == {"NAME": "/var/data/test_shop.sqlite3"}


@pytest.mark.parametrize("url", ["sqlite://:memory:", "sqlite:///:memory:"])
def test_sqlite_in_memory_is_accepted(url: str) -> None:
    assert database(url)["NAME"] == ":memory:"


def test_unsupported_database_is_refused_with_what_was_expected() -> None:
    with pytest.raises(ImproperlyConfigured, match="postgresql://user@host/name"):
        database("mysql://me@host/shop")


def test_folder_is_a_broker(tmp_path: Path) -> None:
    url, options = broker(f"filesystem://{tmp_path}/queues")
    other = Celery(broker=url, set_as_current=False)
    with other.connection_for_write() as connection:
        connection.transport_options = options
        queue = connection.SimpleQueue("bells")
        queue.put("ding")
        assert queue.get(timeout=5).payload == "ding"
        queue.close()


@pytest.mark.django_db
def test_database_of_the_tests_responds() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_broker_of_the_tests_responds() -> None:
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
        queue = connection.SimpleQueue("test-bells")
        queue.put({"run": "1"})
        message = queue.get(timeout=5)
        message.ack()
        assert message.payload == {"run": "1"}
        queue.close()
