"""The lab's proxy and clock do what they claim."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from django.db import connection

from durable_jobs import clock
from tests.lab.databases import movable_clock
from tests.lab.pgwire import Statements
from tests.lab.processes import until
from tests.lab.proxy import Proxy, proxied_broker, proxied_database

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def through(process_environment: dict[str, str]) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy before the test's database, and the address through it."""
    if connection.vendor != "postgresql":
        pytest.skip("the proxy needs PostgreSQL's protocol")
    with proxied_database(process_environment["DATABASE_URL"]) as made:
        yield made


def names() -> list[str]:
    """Return the rows that were written through the proxy."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM lab_gate ORDER BY name")
        return [row[0] for row in cursor.fetchall()]


def test_proxy_forwards(through: tuple[Proxy, str]) -> None:
    proxy, url = through
    with psycopg.connect(url) as client:
        client.execute("INSERT INTO lab_gate VALUES ('a')")
    assert names() == ["a"]
    assert proxy.counts == {"connections": 1}


def test_reply_to_a_commit_is_swallowed_and_the_commit_is_not(
    through: tuple[Proxy, str],
) -> None:
    proxy, url = through
    with psycopg.connect(url) as client:
        client.execute("INSERT INTO lab_gate VALUES ('a')")
        proxy.swallow()
        with pytest.raises(psycopg.OperationalError):
            client.commit()
    assert proxy.counts["swallowed"] == 1
    assert not proxy.armed
    assert names() == ["a"]


@pytest.mark.parametrize("prepare", [True, False])
def test_reply_to_an_autocommit_statement_is_swallowed(
    through: tuple[Proxy, str], prepare: bool
) -> None:
    proxy, url = through
    with psycopg.connect(url, autocommit=True) as client:
        client.prepare_threshold = 0
        insert = "INSERT INTO lab_gate VALUES (%s)"
        client.execute(insert, ["a"], prepare=prepare)
        proxy.swallow("INSERT INTO lab_gate")
        with pytest.raises(psycopg.OperationalError):
            client.execute(insert, ["b"], prepare=prepare)
    assert proxy.counts["swallowed"] == 1
    assert names() == ["a", "b"]


def test_black_hole_replies_nothing_and_loses_its_input(
    through: tuple[Proxy, str],
) -> None:
    proxy, url = through
    client = psycopg.connect(url, autocommit=True)
    proxy.blackhole()
    client.pgconn.send_query(b"INSERT INTO lab_gate VALUES ('a')")
    until(lambda: proxy.counts["lost"], "the statement to be lost")
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(url, connect_timeout=1)
    proxy.heal()
    answer = client.pgconn.get_result()
    assert answer is not None
    assert answer.status == psycopg.pq.ExecStatus.FATAL_ERROR
    client.close()
    assert names() == []
    with psycopg.connect(url) as other:
        other.execute("SELECT 1")


def test_connections_are_reset_and_cut(through: tuple[Proxy, str]) -> None:
    proxy, url = through
    with psycopg.connect(url, autocommit=True) as client:
        assert proxy.cut() == 1
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    with psycopg.connect(url, autocommit=True) as client:
        proxy.reset()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        proxy.heal()
    with psycopg.connect(url, autocommit=True) as client:
        proxy.cut_after(1000)
        client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            client.execute(f"SELECT '{'x' * 1000}'")
    assert proxy.counts["cut"] == 2
    assert proxy.counts["reset"] == 2


def test_proxy_delays(through: tuple[Proxy, str]) -> None:
    proxy, url = through
    with psycopg.connect(url, autocommit=True) as client:
        proxy.delay = 0.01
        client.execute("SELECT 1")
    assert proxy.counts["delayed"] >= 2


def test_broker_has_a_proxy_too() -> None:
    with proxied_broker(os.environ["BROKER_URL"]) as (proxy, url):
        parts = urlsplit(url)
        number = int(parts.path.strip("/"))
        client = redis.Redis(port=parts.port or 0, db=number, retry=None)
        assert client.ping()
        proxy.reset()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        proxy.heal()
        assert client.ping()
        client.close()


def test_absent_target_is_refused() -> None:
    proxy = Proxy("/nowhere.sock")
    client = socket.create_connection(("127.0.0.1", proxy.port))
    with client, pytest.raises(ConnectionResetError):
        client.recv(1)
    proxy.close()


def test_statements_are_read_from_any_pieces() -> None:
    start = (8 + 4).to_bytes(4, "big") + (196608).to_bytes(4, "big") + b"u\0x\0"
    parse = b"P" + (4 + 12).to_bytes(4, "big") + b"s\0SELECT 1\0\0"[:12]
    bind = b"B" + (4 + 5).to_bytes(4, "big") + b"\0s\0\0\0"
    query = b"Q" + (4 + 7).to_bytes(4, "big") + b"COMMIT\0"
    whole = start + parse + bind + query
    reader = Statements()
    found = [one for byte in whole for one in reader.feed(bytes([byte]))]
    assert found == [*Statements().feed(whole)] == [b"SELECT 1", b"COMMIT"]


def test_time_of_the_database_can_be_moved(process_environment) -> None:
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has no clock")
    real = clock.now()
    with movable_clock() as time:
        time.move(timedelta(hours=2))
        assert clock.now() - real > timedelta(hours=1)
        time.move(timedelta(hours=-2))
        assert real - clock.now() > timedelta(hours=1)
    assert abs(clock.now() - real) < timedelta(minutes=10)
