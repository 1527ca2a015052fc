"""The servers of the tests are real, and leave nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from project.shop.models import Tenant
from tests.services import ADDRESSES, ROOT

SHOW = "import json, os; print(json.dumps(dict(os.environ)), flush=True)"
COUNT = """
import django
django.setup()
from project.shop.models import Tenant
print(Tenant.objects.count())
"""
COMMAND = [sys.executable, "-m", "tests.services", "--", sys.executable, "-c"]


@pytest.fixture
def bare() -> dict[str, str]:
    """Return an environment without addresses of servers."""
    return {k: v for k, v in os.environ.items() if k not in ADDRESSES}


def directory(environment: dict[str, str]) -> Path:
    """Return the directory of the servers of ``environment``."""
    query = dict(parse_qsl(urlsplit(environment["DATABASE_URL"]).query))
    return Path(query["host"])


def gone(path: Path) -> bool:
    """Return whether ``path`` disappears within ten seconds."""
    deadline = time.monotonic() + 10
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not path.exists()


def processes_of(path: Path) -> list[str]:
    """Return the command lines of the processes that mention ``path``."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_text(errors="replace"))
    return [line for line in found if str(path) in line]


def test_command_gets_both_servers_and_they_end_with_it(bare: dict[str, str]) -> None:
    result = subprocess.run(
        [*COMMAND, SHOW], cwd=ROOT, env=bare, capture_output=True, text=True, check=True
    )
    seen = json.loads(result.stdout)
    assert set(seen) >= set(ADDRESSES)
    assert not directory(seen).exists()
    assert processes_of(directory(seen)) == []


def test_exit_code_is_the_commands_own(bare: dict[str, str]) -> None:
    result = subprocess.run([*COMMAND, "raise SystemExit(7)"], cwd=ROOT, env=bare)
    assert result.returncode == 7


def test_killed_parent_leaves_nothing_behind(bare: dict[str, str]) -> None:
    parent = subprocess.Popen(
        [*COMMAND, f"{SHOW}; import sys; sys.stdin.read()"],
        cwd=ROOT,
        env=bare,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    base = directory(json.loads(parent.stdout.readline()))
    assert base.exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert gone(base)
    assert processes_of(base) == []
    parent.stdin.close()
    parent.stdout.close()


def test_given_addresses_are_used_unchanged(bare: dict[str, str]) -> None:
    given = {"DATABASE_URL": "sqlite://:memory:", "BROKER_URL": "memory://"}
    result = subprocess.run(
        [*COMMAND, SHOW],
        cwd=ROOT,
        env={**bare, **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout).items() >= given.items()


def test_other_process_sees_the_rows_of_a_test(
    process_environment: dict[str, str],
) -> None:
    Tenant.objects.create(name="acme")
    result = subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=ROOT,
        env=process_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "1\n"
