"""A watched run whose worker is killed and replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from django.db import connection
from playwright.sync_api import Page, expect

from tests.crash.conftest import flush_broker
from tests.lab import durable as functions
from tests.lab.models import Account, Gate
from tests.lab.processes import Lab, until
from tests.lab.processes import lab as opened
from tests.lab.watching import labels

Visit = Callable[..., Page]

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def lab(server: str, process_environment: dict[str, str]) -> Iterator[Lab]:
    """Yield a lab on the server's database and an empty broker."""
    if connection.vendor != "postgresql":
        pytest.skip("real workers work on the database of record")
    flush_broker(process_environment)
    Account.objects.create(name="ledger")
    with opened(process_environment) as made:
        yield made


def test_run_outlives_its_worker_before_the_eyes_of_a_person(
    visit: Visit, page: Page, lab: Lab
) -> None:
    first = lab.worker()
    run = functions.gated.enqueue({"limit": "g"})
    visit("durable_jobs_run_change", run.pk)
    state = page.locator(".durable-state")
    expect(state).to_contain_text("running", ignore_case=True, timeout=30_000)
    until(lambda: labels(run)["g:begin"], "the body to begin", lab)
    first.kill()
    Gate.objects.create(name="g")
    lab.worker()
    lab.beat()
    expect(state).to_contain_text("completed", ignore_case=True, timeout=60_000)
    expect(page.locator(".durable-timeline")).to_contain_text("last")
    assert page.locator("[data-durable-live]").count() == 0
    assert labels(run) == {"one": 1, "g:begin": 2, "g:end": 1, "last": 1}
