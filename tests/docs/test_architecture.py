"""The page on the architecture names modules and functions that exist."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from tests.docs.pages import ROOT, page

PAGE = page("docs/internals/architecture.md")
PACKAGE = ROOT / "durable_jobs"
NAMED = re.compile(r"`([a-z]\w*(?:\.\w+)+)`")
#: Dotted words of the page that are no names of the package.
OTHERS = {"pyproject.toml", "manage.py"}


def resolved(name: str) -> Any:
    """Return the object that a dotted name below ``durable_jobs`` stands for."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        path = ".".join(["durable_jobs", *parts[:length]])
        try:
            found = importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise
            continue
        for part in parts[length:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("name", sorted(set(NAMED.findall(PAGE.prose)) - OTHERS))
def test_architecture_names_only_what_exists(name: str) -> None:
    assert resolved(name) is not None


def test_architecture_has_every_package_and_module_in_its_tree() -> None:
    entries = {path for path in PACKAGE.iterdir() if not path.name.startswith("_")}
    known = {path.stem for path in entries if path.suffix != ".typed"}
    tree = PAGE.prose.partition("The tree")[2].partition("Journey 1")[0]
    named = set(re.findall(r"`(\w+)`", tree))
    assert known <= named, known - named
    assert named - known <= {"durable_jobs"}, named - known
