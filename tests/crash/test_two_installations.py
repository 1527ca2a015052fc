"""Two installations share a broker and never take each other's work."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from django.db import connection
from pytest_django import Settings

from durable_jobs.maintenance import doctor
from durable_jobs.models import Installation, Run
from tests.lab import durable as functions
from tests.lab.databases import migrate, pointed
from tests.lab.models import Account
from tests.lab.processes import Lab, until
from tests.lab.watching import completed

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


@pytest.fixture
def second(lab: Lab) -> Iterator[str]:
    """Yield the address of another installation's database on the same server."""
    name = f"lab_{uuid.uuid4().hex[:8]}"
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name}")
    own = str(connection.settings_dict["NAME"])
    url = lab.environment["DATABASE_URL"].replace(own, name)
    assert url != lab.environment["DATABASE_URL"]
    try:
        migrate(url)
        yield url
    finally:
        lab.close()
        with connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def enqueued() -> list[Run]:
    """Start runs in the installation that this process is configured for."""
    Account.objects.get_or_create(name="ledger")
    return [functions.mixed.enqueue() for _ in range(10)]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_two_installations_complete_their_runs_and_the_doctor_reports_the_mix(
    lab: Lab, second: str, pool: str
) -> None:
    for url in (lab.environment["DATABASE_URL"], second):
        lab.worker("-P", pool, "-c", "2", DATABASE_URL=url)
        lab.beat(DATABASE_URL=url)
    ours = enqueued()
    with pointed(second):
        theirs = enqueued()
        until(lambda: completed(*theirs), "the other runs to end", lab)
        other = Installation.objects.get()
    until(lambda: completed(*ours), "our runs to end", lab)
    own = Installation.objects.get()
    assert own.key != other.key

    def seen() -> bool:
        own.refresh_from_db()
        return own.other_key == other.key

    until(seen, "a message to be recorded", lab)
    assert own.other_queue == "default"
    found = {one.check: one for one in doctor.examine().findings}
    message = found["other-installation"].message
    assert str(own.key) in message
    assert str(other.key) in message
    lines = [line for line in lab.workers[0].text().splitlines() if "ERROR" in line]
    said = [line for line in lines if str(other.key) in line and str(own.key) in line]
    assert 1 <= len(said) <= 4, "one warning a minute in each process"
    lab.close()
    Installation.objects.update(other_seen_at=None)  # the doctor has seen the message


def test_prefix_separates_the_messages_of_two_installations(
    lab: Lab, second: str, settings: Settings
) -> None:
    lab.worker("-P", "prefork", "-c", "1")
    lab.beat()
    options = ("worker", "-l", "INFO", "-P", "prefork", "-c", "1")
    environment = {"DATABASE_URL": second, "LAB_QUEUE_PREFIX": "pr7-"}
    worker = lab.start([*options], environment)
    lab.beat(**environment)
    ours = enqueued()
    settings.DURABLE_JOBS = {**settings.DURABLE_JOBS, "QUEUE_PREFIX": "pr7-"}
    with pointed(second):
        theirs = enqueued()
        until(lambda: completed(*theirs), "the other runs to end", lab)
    until(lambda: completed(*ours), "our runs to end", lab)
    assert "pr7-default" in worker.text()
    assert Installation.objects.get().other_key is None
    lab.close()
