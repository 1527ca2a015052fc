"""Admission beside transactions that stay open."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection, transaction

from durable_jobs import durable
from durable_jobs.definitions.registry import registry
from durable_jobs.lifecycle import admission
from durable_jobs.models import Run
from tests.lab.processes import until
from tests.lab.threads import elsewhere

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(60)]


@pytest.fixture(autouse=True)
def apart() -> Iterator[None]:
    """Isolate the test's declarations, on PostgreSQL."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one writer: races are tested on PostgreSQL")
    with registry.temporary():
        yield


def admitted_meanwhile() -> int:
    """Run admission on another connection, and return the number of promoted runs."""
    found: int = elsewhere(lambda: admission.admit("default", 8))
    return found


def through() -> list[int]:
    """Return the work that may be claimed."""
    rows = Run.objects.filter(status="queued", backlog__isnull=True)
    return list(rows.values_list("data__n", flat=True))


def test_first_run_that_is_being_changed_is_not_overtaken_in_an_ordering() -> None:
    declare = durable.function(id="race.ordered", ordering="event.data.k")
    work = declare(lambda ctx: None)
    for n in range(3):
        work.enqueue({"n": n, "k": "one"})
    admission.admit()
    with transaction.atomic():
        assert Run.objects.get(data__n=0).cancel("or not")
        assert admitted_meanwhile() == 0
        transaction.set_rollback(True)
    until(lambda: admission.admit("default", 8), "the first runs to be promoted")
    assert through() == [0]


def test_locked_run_delays_no_other_run() -> None:
    work = durable.function(id="race.limited", concurrency=2)(lambda ctx: None)
    for n in range(3):
        work.enqueue({"n": n})
    with transaction.atomic():
        assert Run.objects.get(data__n=0).cancel("now")
        assert admitted_meanwhile() == 2
    assert sorted(through()) == [1, 2]
