"""The recorded files: one per case, in the folder of the release that wrote it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.processes import ROOT

HERE = Path(__file__).parent
#: Depth of rows in a file: stages, a stage, tables, rows.
ROWS = 4


def release() -> str:
    """Return the release of the code: its version without the last part."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return str(project["project"]["version"]).rpartition(".")[0]


def releases() -> list[str]:
    """Return the recorded releases, the oldest first."""
    found = [path.name for path in HERE.iterdir() if path.name[0].isdigit()]
    return sorted(found, key=lambda name: [int(part) for part in name.split(".")])


def file(release: str, case: str) -> Path:
    """Return the path of a case of a release."""
    return HERE / release / f"{case}.json"


def recorded() -> Iterator[tuple[str, str]]:
    """Yield the release and the case of each file."""
    for name in releases():
        for path in sorted((HERE / name).glob("*.json")):
            yield name, path.stem


def read(release: str, case: str) -> dict[str, Any]:
    """Read a file."""
    text = file(release, case).read_text(encoding="utf-8")
    journal: dict[str, Any] = json.loads(text)
    return journal


def write(release: str, case: str, journal: dict[str, Any]) -> None:
    """Write a file with one row per line, so that people can read and compare."""
    path = file(release, case)
    path.parent.mkdir(exist_ok=True)
    path.write_text(_pretty(journal) + "\n", encoding="utf-8")


def _pretty(value: Any, depth: int = 0) -> str:
    """Return JSON with line breaks between rows, but not inside of them."""
    inside, outside = "\n" + "  " * (depth + 1), "\n" + "  " * depth
    deep = isinstance(value, dict) and any(
        isinstance(one, dict | list) for one in value.values()
    )
    if deep and depth < ROWS:
        lines = [f"{_line(k)}: {_pretty(v, depth + 1)}" for k, v in value.items()]
        return "{" + inside + f",{inside}".join(lines) + outside + "}"
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        lines = [_pretty(one, depth + 1) for one in value]
        return "[" + inside + f",{inside}".join(lines) + outside + "]"
    return _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
