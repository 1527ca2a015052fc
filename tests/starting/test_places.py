"""Priority orders the runs that may start now; it changes no start time."""

from __future__ import annotations

import pytest

from durable_jobs import durable
from durable_jobs.testing import Kit

pytestmark = pytest.mark.django_db


@pytest.fixture
def seen(durable_kit: Kit) -> list[str]:
    """Declare a function, and return the order in which its runs executed."""
    names: list[str] = []

    @durable.function(id="tests.placed")
    def placed(ctx):
        names.append(ctx.event.data["name"])

    return names


def start(name: str, **options: object) -> None:
    """Start a run of it."""
    from durable_jobs.definitions.registry import registry

    registry.get("tests.placed").using(**options).enqueue({"name": name})


def test_prioritized_run_starts_at_once_on_an_empty_queue(
    durable_kit: Kit, seen: list[str]
) -> None:
    start("patient", priority=-600)
    durable_kit.run_until_idle()
    assert seen == ["patient"]


def test_priority_counts_among_runs_that_were_delayed(
    durable_kit: Kit, seen: list[str]
) -> None:
    start("first", run_after="1h")
    start("urgent", run_after="1h", priority=60)
    durable_kit.advance("1h")
    assert seen == ["urgent", "first"]


def test_delayed_run_with_priority_does_not_start_early(
    durable_kit: Kit, seen: list[str]
) -> None:
    start("urgent", run_after="5m", priority=600)
    durable_kit.advance("4m")
    assert seen == []
    durable_kit.advance("1m")
    assert seen == ["urgent"]


def test_priority_is_worth_so_many_seconds_of_waiting(
    durable_kit: Kit, seen: list[str]
) -> None:
    start("plain")
    durable_kit.advance("59s", run=False)
    start("urgent", priority=60)
    durable_kit.advance("2s", run=False)
    start("too late", priority=60)
    durable_kit.run_until_idle()
    assert seen == ["urgent", "plain", "too late"]
