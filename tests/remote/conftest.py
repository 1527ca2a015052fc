"""A kit, a scripted remote app, and a function of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from durable_jobs import clock, durable, remote
from durable_jobs.models import Run
from durable_jobs.testing import Kit
from tests.remote.elsewhere import Elsewhere, elsewhere

Call = Callable[..., Run]


@pytest.fixture
def kit(db: None) -> Iterator[Kit]:
    """Yield a kit at the machine's time, which is the only time of a remote app."""
    with Kit(now=clock.now().replace(microsecond=0)) as kit:
        yield kit


@pytest.fixture
def app() -> Iterator[Elsewhere]:
    """Yield the app; at the end, all its scripted responses must have been used."""
    with elsewhere() as app:
        yield app
    assert app.left == 0, "the app was asked less often than expected"


@pytest.fixture
def call(kit: Kit, app: Elsewhere) -> Call:
    """Start the app's function ``work`` and run it as far as it goes."""

    def begin(data: Any = None, *, timeout: Any = "5s", **options: Any) -> Run:
        options.setdefault("backoff", durable.Backoff.fixed("10s"))
        made = remote.App("billing", app.url, timeout=timeout).function(
            "work", **options
        )
        run = made.enqueue(data)
        kit.run_until_idle()
        run.refresh_from_db()
        return run

    return begin


@pytest.fixture
def later(kit: Kit) -> Call:
    """Let time pass, and return the run as it is then."""

    def wait(run: Run, length: str) -> Run:
        kit.advance(length)
        run.refresh_from_db()
        return run

    return wait
