"""Fixtures for the tests of model changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from durable_jobs import durable
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from project.shop.models import Tenant

Watch = Callable[..., None]
Changes = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def tenant(durable_kit: Kit) -> Tenant:
    """Return a tenant."""
    return Tenant.objects.create(name="Ada")


@pytest.fixture
def watch(durable_kit: Kit) -> Watch:
    """Declare a function on changes of orders that returns its event's data."""

    def declare(**trigger: Any) -> None:
        durable.function(
            id="watch", on=durable.ModelChange("shop.Order", **trigger), retries=0
        )(lambda ctx: ctx.event.data)

    return declare


@pytest.fixture
def changes(durable_kit: Kit) -> Changes:
    """Return the event data of all runs, the oldest first."""

    def run() -> list[dict[str, Any]]:
        durable_kit.run_until_idle()
        return [one.result() for one in Run.objects.order_by("pk")]

    return run
