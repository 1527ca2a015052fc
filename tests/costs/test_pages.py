"""The pages among many runs: the benchmark's data set and list of pages, small."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from bench.screens import Measured, measure, questions
from bench.screens_data import fill
from bench.screens_pages import Known
from durable_jobs.models import Run, Step

pytestmark = pytest.mark.usefixtures("postgres")

RUNS = 3000


@pytest.fixture
def pages(postgres: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Measured]:
    """Request each page once more than to warm up."""
    monkeypatch.setattr("bench.screens.CALLS", 2)
    monkeypatch.setattr("bench.screens.WARM", 1)
    fill(RUNS)
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    known = Known.read()
    return {name: measure(name, ask) for name, ask in questions(client, known)}


def test_pages_all_exist_and_need_few_queries(pages: dict[str, Measured]) -> None:
    assert Run.objects.count() == RUNS
    assert Step.objects.filter(position=999).count() == 1
    assert set(Run.objects.values_list("status", flat=True)) > {"queued", "failed"}
    assert {name: one.status for name, one in pages.items() if one.status != 200} == {}
    asked = {name: one.queries for name, one in pages.items()}
    # It answers some ten questions at once, several with a query for each half.
    assert asked.pop("overview") <= 30
    # Limits, their runs and backlogs; pauses, workers, and ready runs.
    assert asked.pop("queues and limits") <= 15
    assert max(asked.values()) <= 12, asked
    assert all(one.row.count("|") == 9 for one in pages.values())
