"""Each thing has one name, each name one meaning, and no retired word is left."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "durable_jobs"
MODULES = sorted(
    path for path in PACKAGE.rglob("*.py") if "migrations" not in path.parts
)
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
TEMPLATES = sorted(PACKAGE.rglob("*.html"))

#: Class names that may occur more than once, each with its reason.
SHARED_CLASSES = {
    "Command": "Django's name for a management command",
    "Event": "the trigger durable.Event is public, and so is the model",
    "Media": "Django's name inside a form",
    "Meta": "Django's name inside a model",
    "Subject": "the declaration durable.Subject is public, and so is the model",
}
#: Module names that more than two packages have, each with its reason.
SHARED_STEMS = {
    "__init__": "Python's own",
    "api_keys": "the rows, rules and pages of one concept",
    "approvals": "the rules, queries, API and kit of one concept",
    "callbacks": "the declaration, lifecycle and API of one concept",
    "events": "the rows, queries and API of one concept",
    "limits": "the rows, rules, queries and pages of one concept",
    "model_admin": "the ModelAdmin in each package of admin pages",
    "pauses": "the rows, rules and actions of one concept",
    "runs": "the rows, rules and API of one concept",
    "schedules": "the rows, rules, queries and API of one concept",
    "steps": "the rows, declarations and pages of one concept",
    "views": "Django's name for views",
    "workers": "the rows, queries and pages of one concept",
}
#: Words of former names.
RETIRED = frozenset(
    {"bell", "bells", "bury", "dispatcher", "doorbell", "gate", "gates", "gathers"}
    | {"grave", "graves", "hasten", "keeper", "lacking", "lane", "lanes", "memo"}
    | {"memos", "passage", "passages", "patrol", "shelf", "shelve", "shelves"}
    | {"signalling", "steering", "stray", "strays", "tallies", "tally", "told"}
    | {"trouble", "unshelve", "verb", "verbs", "whoever"}
)
#: Where a retired word means something else.
ALLOWED: dict[str, str] = {}


def words(text: str) -> set[str]:
    """Return the lower-case words of a name or a sentence."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", text)
    return {part.lower() for part in parts}


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the names that a module binds, with their lines."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.arg(arg=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(attr=name, ctx=ast.Store())
            ):
                yield node.lineno, name


def sentences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings of a module, docstrings included, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def retired(path: Path, found: Iterator[tuple[int, str]]) -> list[str]:
    """Return the places of a file where a retired word stands."""
    name = str(path.relative_to(ROOT))
    return [
        f"{name}:{line}: {text[:80]!r}"
        for line, text in found
        if (words(text) & RETIRED) and name not in ALLOWED
    ]


def test_class_names_are_unique() -> None:
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and node.name not in SHARED_CLASSES:
                places[node.name].append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_module_stems_are_in_at_most_two_packages() -> None:
    places = defaultdict(list)
    for path in MODULES:
        places[path.stem].append(str(path.parent.relative_to(ROOT)))
    shared = {stem for stem, found in places.items() if len(found) > 2}
    assert shared == SHARED_STEMS.keys()


def test_identifiers_have_no_retired_words() -> None:
    found: list[str] = []
    for path in MODULES:
        found += retired(path, identifiers(ast.parse(path.read_text())))
    assert not found, "\n".join(found)


def test_strings_and_docstrings_have_no_retired_words() -> None:
    found: list[str] = []
    for path in MODULES:
        found += retired(path, sentences(ast.parse(path.read_text())))
    assert not found, "\n".join(found)


def test_pages_and_templates_have_no_retired_words() -> None:
    found: list[str] = []
    for path in [*PAGES, *TEMPLATES]:
        # Names of tests are no sentences.
        text = re.sub(r"`tests/[^`]*`", "", path.read_text())
        lines = enumerate(text.splitlines(), start=1)
        found += retired(path, iter(lines))
    assert not found, "\n".join(found)


def test_modules_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert [str(path) for path, length in lengths.items() if length > 400] == []
    assert median(lengths.values()) <= 120
