"""The database server crashes and restarts, with or without its latest commits."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections
from pytest_django import DjangoDbBlocker

from durable_jobs.models import Run
from tests.crash.conftest import alive, flush_broker
from tests.lab import checker, journal
from tests.lab import durable as functions
from tests.lab.databases import migrate, own_postgres, pointed
from tests.lab.models import Account, Effect, Gate
from tests.lab.processes import Lab, until
from tests.lab.processes import lab as opened
from tests.lab.watching import completed
from tests.services.postgres import Postgres

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def server(django_db_blocker: DjangoDbBlocker) -> Iterator[Postgres]:
    """Yield a server for these tests, with the tables, as the default database."""
    with django_db_blocker.unblock(), own_postgres() as made, pointed(made.url):
        migrate(made.url)
        with journal.kept():
            yield made


@pytest.fixture
def lab(server: Postgres) -> Iterator[Lab]:
    """Yield a lab on the server, and check the guarantees at the end."""
    environment = {**os.environ, "DATABASE_URL": server.url}
    flush_broker(environment)
    call_command("flush", verbosity=0, interactive=False)
    Account.objects.create(name="ledger")
    with opened(environment) as made:
        yield made
        alive(made)
    checker.check()


def crashed(server: Postgres) -> bool:
    """Crash the server; return whether its connections were lost."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_postmaster_start_time()")
        before = cursor.fetchone()
    server.crash()
    with pytest.raises(OperationalError), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connections.close_all()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_postmaster_start_time()")
        return bool(cursor.fetchone() > before)


def test_server_that_crashes_under_load_loses_no_run_and_no_worker(
    server: Postgres, lab: Lab
) -> None:
    worker = lab.worker("-P", "prefork", "-c", "2")
    beat = lab.beat()
    runs = [functions.patient.enqueue() for _ in range(6)]
    for number in range(2):
        floor = Effect.objects.count() + 6
        until(lambda floor=floor: Effect.objects.count() > floor, "some steps", lab)
        assert crashed(server), number
    until(lambda: completed(*runs), "all runs to end", lab)
    assert worker.alive
    assert beat.alive
    assert Account.objects.get(name="ledger").balance == 30


def test_server_that_loses_its_last_commits_ends_every_run_it_has(
    server: Postgres, lab: Lab
) -> None:
    """As after a failover to a lagging replica: bodies are called again."""
    forgetful = {"PGOPTIONS": "-c synchronous_commit=off"}
    lab.worker("-P", "prefork", "-c", "2", **forgetful)
    lab.beat()
    runs = [functions.patient.enqueue() for _ in range(6)]
    lost = crash_count = 0
    while not lost and crash_count < 5:
        floor = Effect.objects.count() + 4
        until(lambda floor=floor: Effect.objects.count() > floor, "some steps", lab)
        with connection.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")
        Gate.objects.create(name=f"acknowledged {crash_count}")
        assert crashed(server)
        crash_count += 1
        lost = crash_count - Gate.objects.count()
    assert lost, "no acknowledged commit is lost"
    until(lambda: completed(*runs), "all runs to end", lab)
    assert not Run.objects.filter(crash_count__lt=0).exists()
    assert Account.objects.get(name="ledger").balance == 30
