"""The API reference has a row for each endpoint, scope and code, and no others."""

from __future__ import annotations

import re

from durable_jobs import http_input
from durable_jobs.api import long_poll, problems
from durable_jobs.control.scopes import SCOPES
from durable_jobs.queries import metrics
from durable_jobs.queries.run_filter import MAX_SEARCHED, NAMES
from tests.api.endpoints import ENDPOINTS
from tests.docs.pages import page
from tests.docs.test_reference import rows, section

REFERENCE = page("docs/reference/api.md")
PLACE = re.compile(r"\{(\w+)\}")


def shape(path: str) -> str:
    """Return a path with placeholders without names."""
    shown = PLACE.sub("{}", path).replace("tests.asks", "{}").replace("/go", "/{}")
    return shown


def test_every_endpoint_has_its_row_with_its_scope():
    text = section(REFERENCE, "Endpoints")
    found = re.findall(r"^\| `([A-Z]+ [^`]+)` \| (\S+) \|", text, re.MULTILINE)
    known = [
        (shape(f"{one.method} {one.path}"), f"`{one.scope}`" if one.scope else "none")
        for one in ENDPOINTS
    ]
    assert sorted((shape(path), scope) for path, scope in found) == sorted(known)


def test_every_scope_has_its_row_with_its_permissions():
    text = section(REFERENCE, "Scopes")
    shown = {
        scope: set(re.findall(r"`(\w+)`", line))
        for scope in SCOPES
        for line in text.splitlines()
        if line.startswith(f"| `{scope}` |")
    }
    assert shown == SCOPES
    assert set(re.findall(r"^\| `([\w:]+)`", text, re.MULTILINE)) == set(SCOPES)


def test_every_code_of_a_problem_has_its_row():
    text = section(REFERENCE, "Errors")
    shown = set(re.findall(r"^\| (\d+) \| `([\w-]+)` \|", text, re.MULTILINE))
    known = {(str(status), code) for status, code in problems.ERRORS.values()}
    assert known <= shown
    source = "".join(
        path.read_text() for path in sorted(page("durable_jobs/api").path.glob("*.py"))
    )
    raised = set(re.findall(r'Problem\(\s*(\d+),\s*"([\w-]+)"', source))
    assert raised | known == shown


def test_every_filter_is_named():
    text = section(REFERENCE, "Lists")
    assert set(NAMES) <= set(re.findall(r"`(\w+)`", text))
    assert f"{MAX_SEARCHED:,}" in text


def test_every_metric_has_its_row(db):
    from durable_jobs.api.metrics import text

    exposed = set(re.findall(r"^# HELP (\w+)", text().decode(), re.MULTILINE))
    assert set(rows(section(REFERENCE, "Metrics"))) == exposed


def test_limits_in_the_reference_equal_the_code():
    text = section(REFERENCE, "Limits")
    assert f"{http_input.MOST_VALUES:,} values" in text
    assert f"at most {long_poll.LONGEST} seconds" in text
    assert long_poll.MOST == 8
    assert "Eight requests" in text
    assert f"{metrics.MAX_COUNT:,}" in section(REFERENCE, "Metrics")
