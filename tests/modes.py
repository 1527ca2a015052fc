"""The pytest plugin that runs the same tests in harder ways: ``--mode``.

``suspend`` leaves a function after each step and resumes it through the queue.
``ambiguous`` lets the database fail once after each commit of an attempt or a sweep:
the commit stands, but its caller gets an error. In either mode the tests must have the
same results.

A test that asserts a number of calls or a time, and not a result, is marked
``exact(reason)``. Such tests are skipped where commits fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--mode",
        choices=list(_MODES),
        default="inline",
        help="run as usual, suspending after each step, or failing after each commit",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    text = (
        "exact(reason): counts what --mode=ambiguous changes, so it is left out there"
    )
    config.addinivalue_line("markers", text)


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Skip tests that hold only where no commit fails."""
    if config.getoption("--mode") != "ambiguous":
        return
    for item in items:
        mark = item.get_closest_marker("exact")
        if mark is not None:
            item.add_marker(pytest.mark.skip(f"exact: {mark.args[0]}"))


@pytest.fixture(autouse=True)
def mode(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Put the engine into the selected mode."""
    chosen = str(request.config.getoption("--mode"))
    with _MODES[chosen](monkeypatch):
        yield chosen


@contextmanager
def inline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Change nothing."""
    yield


@contextmanager
def suspending(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make suspension after each step the default."""
    from durable_jobs import conf

    written = conf._written
    monkeypatch.setattr(conf, "_written", lambda: {"ALWAYS_SUSPEND": True, **written()})
    conf._lazy.reload(setting=conf.NAME)
    yield
    conf._lazy.reload(setting=conf.NAME)


@contextmanager
def ambiguous(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail once after each commit of an attempt or a sweep."""
    from durable_jobs import failpoints
    from durable_jobs.engine import attempt, database_errors
    from durable_jobs.maintenance import tick

    lost = LostAnswers()
    # Time stands still in most tests, so failed work is retried at once.
    monkeypatch.setattr(database_errors, "FIRST_PAUSE", timedelta(0))
    monkeypatch.setattr(
        attempt, "execute_attempt", lost.inside(attempt.execute_attempt)
    )
    monkeypatch.setattr(tick, "_guarded", lost.inside(tick._guarded))
    with failpoints.watching(lost.passed):
        yield


class LostAnswers:
    """Loses the response to the first commit of each kind for each step."""

    def __init__(self) -> None:
        self._depth = 0
        self._seen: set[tuple[str, str]] = set()

    def inside(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``call``, inside of which responses are lost; it handles that."""

        def calling(*args: Any, **options: Any) -> Any:
            self._depth += 1
            try:
                return call(*args, **options)
            finally:
                self._depth -= 1

        return calling

    def passed(self, name: str, detail: str) -> None:
        """Raise at a commit whose response is to be lost."""
        from django.db import OperationalError

        from durable_jobs.definitions import execution

        if not self._depth or not name.endswith((".committed", ".reclaimed")):
            return
        if name.startswith(("cron.", "prune.")):
            return  # a later tick does what such a sweep leaves out
        if execution.current_body.get() is not None and name != "record.committed":
            return  # what a body calls fails in the body: an error of the step
        if (name, detail) not in self._seen:
            self._seen.add((name, detail))
            raise OperationalError(f"the answer to {name} was lost")


_MODES = {"inline": inline, "suspend": suspending, "ambiguous": ambiguous}
