"""Every example of the documentation does what the text around it says.

The examples of most sections have a test of their own: see ``tests.docs.examples``.
"""

from __future__ import annotations

import pytest

from durable_jobs.testing import Kit
from tests.docs.examples import Story, sections_with_tests
from tests.docs.pages import Page, Section, sections

FIRST_RUN = "docs/tutorial/first-run.md"  # test_first_run.py follows it
TESTED = set(sections_with_tests())


@pytest.mark.parametrize(("page", "title"), sorted(TESTED, key=str))
def test_every_section_that_a_test_names_exists(page: Page, title: str) -> None:
    assert title in [section.title for section in page.sections]


@pytest.mark.parametrize(
    "section",
    [
        section
        for section in sections()
        if str(section.page) != FIRST_RUN
        and (section.page, section.title) not in TESTED
    ],
    ids=str,
)
def test_examples_without_their_own_test_run(
    section: Section, durable_kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    story = Story(section, durable_kit, monkeypatch)
    story.run_all()
    story.finish()
