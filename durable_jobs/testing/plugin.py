"""The pytest plugin: the fixture ``durable_kit``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from durable_jobs.testing.kit import Kit


@pytest.fixture
def durable_kit(db: None) -> Iterator[Kit]:
    """Give a test the engine on a virtual clock."""
    # Imported late: the plugin is loaded before Django is set up.
    from durable_jobs.testing.kit import Kit

    with Kit() as kit:
        yield kit
