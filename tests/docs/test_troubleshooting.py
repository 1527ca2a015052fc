"""The page on troubleshooting covers every check, finding and state."""

from __future__ import annotations

import re
from functools import cache

from durable_jobs.maintenance.invariants import VIOLATIONS
from tests.docs.pages import page
from tests.docs.test_reference import PACKAGE, reference, rows, section

PAGE = page("docs/how-to/troubleshooting.md")
#: Where the reference lists the doctor's findings, including the invariants.
FINDING = re.compile(r"^\| `([\w-]+)`", re.MULTILINE)


@cache
def prose() -> str:
    """Return the text of the page."""
    return PAGE.prose


def test_troubleshooting_has_at_least_thirty_symptoms() -> None:
    lines = [line for line in prose().splitlines() if line.count("|") == 4]
    assert len(lines) >= 30


def test_troubleshooting_has_every_system_check() -> None:
    listed = set(rows(section(PAGE, "System checks")))
    assert listed == set(rows(section(reference("settings"), "System checks")))


def test_troubleshooting_has_every_finding_of_the_doctor() -> None:
    for name in FINDING.findall(section(reference("commands"), "durable_doctor")):
        assert f"`{name}`" in prose(), name


def test_troubleshooting_has_every_invariant() -> None:
    listed = FINDING.findall(section(PAGE, "A state that should not exist"))
    assert listed == [one.name for one in VIOLATIONS]


def test_troubleshooting_has_every_state_of_an_explanation() -> None:
    source = (PACKAGE / "queries" / "explain.py").read_text()
    states = set(re.findall(r'state="([\w-]+)"', source))
    assert states
    for state in states:
        assert f"(`{state}`)" in prose(), state
