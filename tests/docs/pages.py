"""Read the pages of the documentation and the examples in them.

A section is the text below one ``##`` heading, or above the first one. Its blocks of
``python`` are its examples. They run in order, in one module, so each example sees the
names of the earlier ones. A block that begins with a file name, such as
``# mysite/settings.py``, is that file. Other blocks belong to ``shop/durable.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

_OPENING = re.compile(r"^```(?P<language>\w*)$")
_HEADING = re.compile(r"^(?P<marks>#+) (?P<title>.+)$")
_FILE = re.compile(r"^# (?P<file>[\w/]+\.py)$")


@dataclass(frozen=True)
class Block:
    """A fenced block. ``line`` is the number of its first line."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """Return the file of the reader's project that the block is."""
        found = _FILE.match(self.text.partition("\n")[0])
        return found["file"] if found else "shop/durable.py"


@dataclass
class Section:
    """The blocks below a heading of the second level, or above the first one."""

    page: Page
    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def examples(self) -> list[Block]:
        """Return the blocks that tests execute."""
        return [block for block in self.blocks if block.language == "python"]

    def __str__(self) -> str:
        return f"{self.page}::{self.title}"


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def lines(self) -> list[str]:
        """Return the lines of the page."""
        return self.path.read_text(encoding="utf-8").splitlines()

    @cached_property
    def _parts(self) -> tuple[list[Section], list[str], str]:
        sections, headings, prose = [Section(self, "")], [], []
        reader = enumerate(self.lines, 1)
        for number, line in reader:
            opening = _OPENING.match(line)
            if opening is not None:
                block = _block(opening["language"], number, reader)
                sections[-1].blocks.append(block)
                continue
            heading = _HEADING.match(line)
            if heading is not None:
                headings.append(heading["title"])
                if heading["marks"] == "#":
                    sections[0].title = heading["title"]
                elif heading["marks"] == "##":
                    sections.append(Section(self, heading["title"]))
            prose.append(line)
        return sections, headings, "\n".join(prose)

    @property
    def sections(self) -> list[Section]:
        """Return the sections. The first has the title of the page."""
        return self._parts[0]

    def section(self, title: str) -> Section:
        """Return the section with a heading."""
        found = {section.title: section for section in self.sections}
        assert title in found, f"Expected a heading of {self}, got {title!r}."
        return found[title]

    @property
    def headings(self) -> list[str]:
        """Return the headings of all levels."""
        return self._parts[1]

    @property
    def prose(self) -> str:
        """Return the text outside of blocks."""
        return self._parts[2]

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks of all sections."""
        return [block for section in self.sections for block in section.blocks]

    @property
    def anchors(self) -> set[str]:
        """Return the anchors of the headings."""
        return {anchor(title) for title in self.headings}


def _block(language: str, number: int, reader: Iterator[tuple[int, str]]) -> Block:
    text = []
    for _, line in reader:
        if line == "```":
            return Block(language, "\n".join(text) + "\n", number + 1)
        text.append(line)
    msg = f"Expected the block in line {number} to end."
    raise ValueError(msg)


def anchor(title: str) -> str:
    """Return the anchor that GitHub and the site give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def page(name: str) -> Page:
    """Return a page by its path from the root of the repository."""
    return Page(ROOT / name)


def pages() -> list[Page]:
    """Return all pages."""
    top = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")
    paths = [*(ROOT / name for name in top), *sorted(DOCS.rglob("*.md"))]
    return [Page(path) for path in paths]


def sections() -> list[Section]:
    """Return the sections that have examples."""
    found = [section for page in pages() for section in page.sections]
    return [section for section in found if section.examples]
