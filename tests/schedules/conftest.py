"""Fixtures for crons and schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit

Slots = Callable[[], list[datetime]]
Every = Callable[..., durable.Function]


@pytest.fixture
def kit(db: None) -> Iterator[Kit]:
    """Yield a kit whose time is a Wednesday's noon in UTC."""
    with Kit(now=datetime(2026, 3, 4, 12, tzinfo=UTC)) as kit:
        yield kit


@pytest.fixture
def every(kit: Kit) -> Every:
    """Declare a function that starts at the times of a cron."""

    def declare(text: str, id: str = "clock", **options: Any) -> durable.Function:
        made: durable.Function = durable.function(
            id=id, on=durable.Cron(text, **options)
        )(lambda ctx: ctx.event.data)
        return made

    return declare


@pytest.fixture
def slots(kit: Kit) -> Slots:
    """Return the scheduled times of all runs."""

    def found() -> list[datetime]:
        runs = Run.objects.order_by("pk")
        return [run.result()["scheduled_at"] for run in runs]

    return found
