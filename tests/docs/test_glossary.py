"""The glossary is sorted, and has a row for each model."""

from __future__ import annotations

import itertools

import pytest

from durable_jobs import models
from tests.docs.pages import page
from tests.docs.test_reference import section

GLOSSARY = page("docs/reference/glossary.md")
TABLES = [
    title
    for title in GLOSSARY.headings[1:]
    if title not in ("Words of other systems", "See also")
]


@pytest.mark.parametrize("title", TABLES)
def test_glossary_is_in_alphabetical_order(title: str) -> None:
    lines = section(GLOSSARY, title).splitlines()
    words = [line.split("|")[1].strip().lower() for line in lines if "|" in line][2:]
    assert words
    for before, after in itertools.pairwise(words):
        assert before < after


def test_glossary_names_every_model() -> None:
    text = GLOSSARY.prose
    for name in models.__all__:
        if hasattr(getattr(models, name), "_meta"):
            assert f"`{name}`" in text, name
