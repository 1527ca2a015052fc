"""The table of faults names existing tests, and contains every fault test."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.docs.pages import ROOT, page

ROWS = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.*?) ?\|$")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[tuple[int, str]]:
    """Return the number and the tests of each row."""
    found = [ROWS.match(line) for line in page("docs/internals/faults.md").lines]
    return [(int(row[1]), row[4]) for row in found if row is not None]


@cache
def functions_in(path: str) -> set[str]:
    """Return the names of the functions that a file defines."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_faults_all_have_a_row() -> None:
    numbers = [number for number, _ in rows()]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 31


def test_each_row_names_tests_that_exist() -> None:
    for number, tests in rows():
        named = NAMED.findall(tests)
        assert named, f"row {number} has no test"
        for path, name in named:
            assert name in functions_in(path), f"row {number} names {name}"


def test_every_test_of_a_fault_is_in_the_table() -> None:
    known = {name for _, tests in rows() for _, name in NAMED.findall(tests)}
    for subject in SUBJECTS:
        path = f"tests/crash/test_{subject}.py"
        here = {name for name in functions_in(path) if name.startswith("test_")}
        missing = here - known - {UNNAMED}
        assert not missing, f"{path} has {missing}"


#: The files whose tests all belong to the table.
SUBJECTS = (
    "broker_fails",
    "clocks",
    "database_fails",
    "database_restarts",
    "deadlocks",
    "deploys",
    "many_timers",
    "poison",
    "remote_apps",
    "workers_die",
)
#: The opposite of a row: no false alarm.
UNNAMED = "test_idle_and_busy_workers_do_not_count_as_unreachable"
