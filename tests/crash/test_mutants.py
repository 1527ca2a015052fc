"""Without a guard, the test named beside it in ``mutants`` fails.

The test runs in its own process on its own database. It must fail by an assertion.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from django.db import connection
from pytest_django import DjangoDbBlocker

from tests.crash.mutants import MUTANTS
from tests.lab.processes import ROOT

pytestmark = pytest.mark.timeout(300)

ASSERTED = re.compile(r"^E +(AssertionError|assert |Failed: DID NOT RAISE)", re.M)


@pytest.fixture(scope="module")
def environment(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[dict[str, str]]:
    """Yield the environment of the mutants: this server, and another database."""
    if connection.vendor != "postgresql":
        pytest.skip("the guards are in PostgreSQL's statements")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    address = urlsplit(os.environ["DATABASE_URL"])
    name = f"{address.path.strip('/')}_mutants_{worker}"
    url = address._replace(path=f"/{name}").geturl()
    inherited = {key: value for key, value in os.environ.items() if "XDIST" not in key}
    yield {**inherited, "DATABASE_URL": url, "PYTEST_ADDOPTS": ""}
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "test_{name}"')


@pytest.mark.parametrize("name", MUTANTS)
def test_guard_is_missed(name: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--reuse-db"]
    command += ["-p", "no:cacheprovider", "-p", "tests.crash.mutants"]
    ran = subprocess.run(
        [*command, MUTANTS[name].caught_by],
        cwd=ROOT,
        env={**environment, "MUTANT": name},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, f"no test failed:\n{ran.stdout}{ran.stderr}"
    assert ASSERTED.search(ran.stdout), (
        f"the test did not fail by an assertion:\n{ran.stdout}"
    )
    assert " error" not in ran.stdout.splitlines()[-1], ran.stdout
