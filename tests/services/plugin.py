"""The pytest plugin that starts the servers before pytest-django reads the settings.

Load it with ``-p``: a conftest would be read too late. With pytest-xdist the controller
starts the servers, and the workers inherit their addresses.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import ExitStack

import pytest

from tests.services import ServiceError, running

# Options for which pytest runs no test.
QUESTIONS = ("help", "version", "showfixtures", "show_fixtures_per_test", "markers")

_servers = ExitStack()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config,
) -> Generator[None, object, object]:
    """Start the servers; a wrapper comes before pytest-django's own first hook."""
    options = early_config.known_args_namespace
    if not any(getattr(options, name, False) for name in QUESTIONS):
        try:
            started = _servers.enter_context(running())
        except ServiceError as error:
            raise pytest.UsageError(str(error)) from error
        early_config.add_cleanup(_servers.close)
        _share_broker(started)
    return (yield)


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of parallel tests: many wait for other processes."""
    return max(1, (os.cpu_count() or 1) * 3 // 2)


def _share_broker(started: dict[str, str]) -> None:
    """Return each xdist worker a numbered database of the broker that we started."""
    if "BROKER_URL" in started:
        os.environ["SERVICES_BROKER"] = started["BROKER_URL"]
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    ours = os.environ.get("SERVICES_BROKER")
    if worker.startswith("gw") and ours is not None:
        number = int(worker.removeprefix("gw")) + 1
        os.environ["BROKER_URL"] = ours.replace(
            "virtual_host=0", f"virtual_host={number}"
        )
