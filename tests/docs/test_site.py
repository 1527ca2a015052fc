"""The site holds every page; `zensical build --strict` checks links between them."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import DOCS, ROOT, Page, pages
from tests.docs.test_links import LINK

ENTRY = re.compile(r"^ +- (?:[\w' -]+: )?([\w/-]+\.md)$", re.MULTILINE)
SITE = [page for page in pages() if page.path.is_relative_to(DOCS)]


def test_navigation_names_every_page_once() -> None:
    named = ENTRY.findall((ROOT / "mkdocs.yml").read_text())
    known = [str(page.path.relative_to(DOCS)) for page in SITE]
    assert sorted(named) == sorted(known)


@pytest.mark.parametrize("page", SITE, ids=str)
def test_links_stay_on_the_site(page: Page) -> None:
    for target in LINK.findall(page.prose):
        path = target.partition("#")[0]
        if path and not path.startswith("https://"):
            assert (page.path.parent / path).resolve().is_relative_to(DOCS), target
