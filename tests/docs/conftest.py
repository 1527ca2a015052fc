"""Fixtures of the tests of pages: see tests.docs.examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

from durable_jobs.testing import Kit
from tests.docs.examples import Story, page_of


@pytest.fixture
def kit(durable_kit: Kit) -> Kit:
    """Return the kit by its short name."""
    return durable_kit


@pytest.fixture
def story(
    request: pytest.FixtureRequest, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Story]:
    """Yield the examples of the section that the test names."""
    section = page_of(request.path).section(request.function.section)
    story = Story(section, kit, monkeypatch)
    yield story
    story.finish()


@pytest.fixture
def run_example(story: Story) -> Callable[[], None]:
    """Return the function that runs the next example of the section."""
    return story.run_example


@pytest.fixture
def shop(story: Story) -> ModuleType:
    """Return the module in which the examples run."""
    return story.module
