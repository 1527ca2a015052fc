"""The pages of the documentation, and the examples in them.

A section is what stands below one ``##`` heading. Its examples are one story: they are
executed in order, in one module, and see what those before them have left. Three kinds
of block are executed:

* Blocks of ``python``. Those of a reader's file begin with its name, as
  ``# mysite/settings.py``; one without a name is of ``shop/durable.py``.
* ``<!-- run`` … ``-->``: executed like them, and not shown. They hold what an example
  takes for granted, and say what must have come of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"

_OPENING = re.compile(r"^(?:```(?P<language>\w*)|<!-- (?P<hidden>run))$")
_HEADING = re.compile(r"^(?P<marks>#+) (?P<title>.+)$")
_FILE = re.compile(r"^# (?P<file>[\w/]+\.py)$")


@dataclass(frozen=True)
class Block:
    """A fenced block, or a hidden one. ``line`` is the number of its first line."""

    language: str
    text: str
    line: int
    hidden: bool = False

    @property
    def file(self) -> str:
        """Return the file of the reader's that it is of."""
        found = _FILE.match(self.text.partition("\n")[0])
        return found["file"] if found else "shop/durable.py"


@dataclass
class Section:
    """What stands below one heading of the second level, or before the first."""

    page: Page
    title: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def examples(self) -> list[Block]:
        """Return the blocks that are executed."""
        return [block for block in self.blocks if block.language == "python"]

    def __str__(self) -> str:
        return f"{self.page}::{self.title}"


@dataclass(frozen=True)
class Page:
    """One page, by its path."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def lines(self) -> list[str]:
        """Return its lines."""
        return self.path.read_text(encoding="utf-8").splitlines()

    @cached_property
    def _parts(self) -> tuple[list[Section], list[str], str]:
        sections, headings, prose = [Section(self, "")], [], []
        reader = enumerate(self.lines, 1)
        for number, line in reader:
            opening = _OPENING.match(line)
            if opening is not None:
                sections[-1].blocks.append(_block(opening, number, reader))
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
        """Return its sections."""
        return self._parts[0]

    def section(self, title: str) -> Section:
        """Return a section by its heading."""
        found = {section.title: section for section in self.sections}
        assert title in found, f"Expected a heading of {self}, got {title!r}."
        return found[title]

    @property
    def headings(self) -> list[str]:
        """Return its headings of all levels."""
        return self._parts[1]

    @property
    def prose(self) -> str:
        """Return what is no block."""
        return self._parts[2]

    @property
    def blocks(self) -> list[Block]:
        """Return its blocks."""
        return [block for section in self.sections for block in section.blocks]

    @property
    def anchors(self) -> set[str]:
        """Return what a link to a heading of it may end in."""
        return {anchor(title) for title in self.headings}


def _block(
    opening: re.Match[str],
    number: int,
    reader: enumerate[str] | Iterator[tuple[int, str]],
) -> Block:
    closing = "-->" if opening["hidden"] else "```"
    text = []
    for _, line in reader:
        if line == closing:
            break
        text.append(line)
    else:
        raise ValueError(f"The block in line {number} is not closed.")
    language = "python" if opening["hidden"] else opening["language"]
    code = "\n".join(text) + "\n"
    return Block(language, code, number + 1, hidden=bool(opening["hidden"]))


def anchor(title: str) -> str:
    """Return the anchor of a heading, as it is made where the pages are read."""
    return re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-")


def page(name: str) -> Page:
    """Return a page by its path from the root."""
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
