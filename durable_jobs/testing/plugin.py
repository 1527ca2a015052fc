"""The pytest plugin: the fixture ``durable_kit``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from durable_jobs.testing.kit import Kit


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "durable_kit(**options): options of the fixture durable_kit, such as "
        "unused_stubs='ignore'.",
    )


@pytest.fixture
def durable_kit(db: None, request: pytest.FixtureRequest) -> Iterator[Kit]:
    """Yield a ``Kit``: the engine with a virtual clock.

    The marker ``durable_kit`` sets the options of the kit.
    """
    # Imported late: the plugin is loaded before Django is set up.
    from durable_jobs.testing.kit import Kit

    marker = request.node.get_closest_marker("durable_kit")
    with Kit(**(marker.kwargs if marker else {})) as kit:
        yield kit
