"""Every link target, test and command in the documentation exists."""

from __future__ import annotations

import ast
import re
import shlex

import pytest
from celery.bin.celery import celery
from click import Context
from django.core.management import get_commands, load_command_class
from django.core.management.base import CommandParser

from tests.docs.pages import DOCS, ROOT, Page, pages

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
MANAGE = re.compile(r"(?:python )?manage\.py (.+)")


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_all_have_a_target(page: Page) -> None:
    for target in LINK.findall(page.prose):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        place = (page.path.parent / path).resolve() if path else page.path
        assert place.exists(), f"{page} links to {target}"
        assert place.is_relative_to(ROOT)
        if fragment:
            assert fragment in Page(place).anchors, f"{page} links to {target}"


@pytest.mark.parametrize("page", pages(), ids=str)
def test_every_test_that_is_named_exists(page: Page) -> None:
    for path, name in TEST.findall(page.prose):
        tree = ast.parse((ROOT / path).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name in names, f"{page} names {path}::{name}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        path = ahead.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        targets = LINK.findall(Page(path).prose)
        local = [target.partition("#")[0] for target in targets if ":" not in target]
        ahead += [(path.parent / name).resolve() for name in local if name]
    assert set(DOCS.rglob("*.md")) <= reached


@pytest.mark.parametrize("page", pages(), ids=str)
def test_command_lines_are_all_accepted_by_their_commands(page: Page) -> None:
    for block in page.blocks:
        for line in block.text.splitlines() if block.language == "sh" else ():
            found = MANAGE.search(line)
            if found is not None:
                name, *arguments = shlex.split(found[1], comments=True)
                parse(name, arguments)
            elif line.startswith("celery -A mysite "):
                _, _, _, name, *arguments = shlex.split(line)
                kind = celery.commands[name]
                kind.make_parser(Context(kind)).parse_args(arguments)


def parse(name: str, arguments: list[str]) -> None:
    """Let a command's own parser read arguments; it exits if they are invalid."""
    app = get_commands()[name]
    command = load_command_class(app, name) if isinstance(app, str) else app
    parser: CommandParser = command.create_parser("manage.py", name)
    parser.parse_args(arguments)
