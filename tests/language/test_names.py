"""Each thing has one name, each name one meaning, and no retired word is left."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
PACKAGE = HERE / "durable_jobs"
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts
)

#: Module names that more than two packages have, each with its reason.
SHARED_STEMS = {
    "__init__": "Python's own",
    "views": "Django's name for views",
    "model_admin": "one for each package of admin pages",
    "approvals": "the screens, API, queries and code of one concept",
    "events": "the screens, API, queries and rows of one concept",
    "schedules": "the screens, API, queries and rows of one concept",
    "limits": "the screens, queries, rules and rows of one concept",
    "pauses": "the screens, rules and rows of one concept",
    "runs": "the screens, API, actions and rows of one concept",
    "functions": "the screens, API and queries of one concept",
    "steps": "the screens, rows and declarations of one concept",
}

#: Words of former names. Identifiers are split at capitals and underscores.
RETIRED = (
    "lane lanes gate gates passage passages bell bells doorbell verb verbs keeper patrol "
    "grave graves bury shelve unshelve steering looking signalling ringing lacking "
    "dispatcher memo memos tally tallies whoever"
).split()

#: Phrases of the former voice, which no docstring, label, message or page has.
PHRASES = (
    "whoever somebody nobody doorbell",
    "such a one",
    "for to",
    "what came of",
    "left no word",
    "by itself alone",
)


def words(name: str) -> list[str]:
    """Split an identifier into its lower-case words."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def identifiers(path: Path) -> Iterator[tuple[int, str]]:
    """Give each name that a module binds, with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        line = getattr(node, "lineno", 0)
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield line, name
            case ast.ClassDef(name=name) | ast.arg(arg=name):
                yield line, name
            case ast.Name(id=name, ctx=ast.Store()):
                yield line, name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield line, name


def test_a_class_name_is_defined_once() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            # An inner ``Meta`` is Django's own.
            if isinstance(node, ast.ClassDef) and node.name not in {"Meta", "Media"}:
                places[node.name].append(str(path.relative_to(HERE)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_a_module_stem_is_in_at_most_two_packages() -> None:
    places = defaultdict(list)
    for path in MODULES:
        places[path.stem].append(str(path.parent.relative_to(HERE)))
    shared = {
        stem: found
        for stem, found in places.items()
        if len(found) > 2 and stem not in SHARED_STEMS
    }
    assert shared == {}


def test_shared_stems_are_all_needed() -> None:
    stems = [path.stem for path in MODULES]
    assert [stem for stem in SHARED_STEMS if stems.count(stem) < 3] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HERE)))
def test_an_identifier_has_no_retired_word(path: Path) -> None:
    found = [
        f"{line}: {name}"
        for line, name in identifiers(path)
        if set(words(name)) & set(RETIRED)
    ]
    assert found == []
