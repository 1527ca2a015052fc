"""Fixtures that run functions in two modes, and the checks after every test.

``suspending`` leaves the function after each step and resumes it through the queue. So
a function sees in replay what it saw at first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_django import Settings

from durable_jobs import durable, notifier
from durable_jobs.definitions.registry import registry
from durable_jobs.models import Run, Step, Wait
from durable_jobs.statuses import STEP_ENDED
from durable_jobs.testing import Kit
from durable_jobs.worker import queue_loop
from tests.engine.workers import Deaf

Start = Callable[..., Run]
Later = Callable[..., Run]
Configure = Callable[..., None]


@pytest.fixture
def configure(settings: Settings) -> Configure:
    """Change settings of the app, in addition to those of the mode."""

    def change(**values: Any) -> None:
        settings.DURABLE_JOBS = {**getattr(settings, "DURABLE_JOBS", {}), **values}

    return change


@pytest.fixture
def unserved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep runs queued until the test serves, as a worker with short runs does."""
    monkeypatch.setattr(queue_loop, "SHORT_RUN", 3600.0)
    with registry.temporary(), notifier.using(Deaf()):
        yield


@pytest.fixture
def order() -> list[str]:
    """Return the list in which functions record that they begin."""
    return []


@pytest.fixture(params=["straight", "suspending"], autouse=True)
def suspending(request: pytest.FixtureRequest, configure: Configure) -> bool:
    """Run each test twice; return whether this is the suspending mode."""
    again = bool(request.param == "suspending")
    configure(ALWAYS_SUSPEND=again)
    return again


@pytest.fixture(autouse=True)
def nothing_left_behind(db: None) -> Iterator[None]:
    """Check that no ended run has a lease, a wait or an open step."""
    yield
    ended = Run.objects.filter(ended_at__isnull=False)
    assert not ended.filter(lease_token__isnull=False).exists(), (
        "an ended run has a lease"
    )
    assert not Wait.objects.filter(run__in=ended).exists(), "an ended run still waits"
    still_open = Step.objects.filter(run__in=ended).exclude(status__in=STEP_ENDED)
    assert not still_open.exists(), f"an ended run has open steps: {still_open}"


@pytest.fixture
def start(durable_kit: Kit) -> Start:
    """Start a function, run until idle, and return its run."""

    def begin(body: Any, data: Any = None, **options: Any) -> Run:
        function = body
        if not isinstance(body, durable.Function):
            function = durable.function(id=f"tests.{body.__name__}", **options)(body)
        run: Run = function.enqueue(data)
        durable_kit.run_until_idle()
        run.refresh_from_db()
        return run

    return begin


@pytest.fixture
def later(durable_kit: Kit) -> Later:
    """Let time pass and return the current state of the run."""

    def pass_time(run: Run, duration: Any = 0) -> Run:
        durable_kit.advance(duration)
        run.refresh_from_db()
        return run

    return pass_time
