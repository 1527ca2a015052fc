"""Fixtures of the crash tests: the lab, and the guarantees checked after every test."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from celery import current_app
from django.db import connection
from pytest_django import Settings

from durable_jobs.maintenance import tick
from tests.lab import checker, journal
from tests.lab import durable as functions
from tests.lab.models import Account
from tests.lab.processes import Lab, until
from tests.lab.processes import lab as opened
from tests.lab.watching import ended

PASSED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record whether the test passed; only then are the guarantees checked."""
    report = yield
    if report.when == "call":
        item.stash[PASSED] = report.passed
    return report


@pytest.fixture(autouse=True)
def checked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check the guarantees against the rows that the test leaves."""
    if request.node.get_closest_marker("django_db") is None:
        yield
        return
    request.getfixturevalue("transactional_db")
    if connection.vendor != "postgresql":
        pytest.skip("crashes and races are tested on PostgreSQL")
    with journal.kept():
        yield
        if request.node.stash.get(PASSED, False):
            checker.check()


@pytest.fixture
def simulated(
    checked: None, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Keep every run, and silence the logs of the simulated faults."""
    kinds = ("completed", "failed", "cancelled", "skipped", "events")
    # Skip pruning and statistics: they would add hits to every tick.
    settings.DURABLE_JOBS = {"RETENTION": dict.fromkeys(kinds)}
    monkeypatch.setitem(tick._SWEEPS, "run_stats", lambda: 0)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def lab(
    request: pytest.FixtureRequest, checked: None, process_environment: dict[str, str]
) -> Iterator[Lab]:
    """Yield a lab on the test's own database and an empty broker.

    After a passed test, a newly started run must end.
    """
    assert current_app.main == "project", (
        "a test has left another Celery app as current"
    )
    flush_broker(process_environment)
    Account.objects.create(name="ledger")
    with opened(process_environment) as made:
        yield made
        if request.node.stash.get(PASSED, False):
            alive(made)


def alive(lab: Lab) -> None:
    """Fail unless a run that starts now also ends."""
    if not lab.has_worker():
        lab.worker()
    run = functions.five_steps.enqueue()
    until(lambda: ended(run), "a run that was started after the faults to end", lab)


def flush_broker(environment: dict[str, str]) -> None:
    """Delete all messages."""
    from kombu import Connection

    with Connection(environment["BROKER_URL"]) as broker:
        channel: Any = broker.default_channel
        channel.client.flushdb()
