"""Real servers for the tests: PostgreSQL and Valkey, unless addresses are given.

A *keeper* process holds the servers and their directory. It stops both when its
standard input closes. So the servers end with the process that started them, even after
a crash.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.services.processes import ServiceError, die_with_parent

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = ("DATABASE_URL", "BROKER_URL")
STOP_SECONDS = 20

__all__ = ["ROOT", "ServiceError", "running"]


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """Run the servers whose address is not in the environment, and export theirs."""
    wanted = [name for name in ADDRESSES if not os.environ.get(name)]
    if not wanted:
        yield {}
        return
    with _keeper(wanted) as addresses:
        os.environ.update(addresses)
        try:
            yield addresses
        finally:
            for name in addresses:
                os.environ.pop(name, None)


@contextmanager
def _keeper(wanted: list[str]) -> Iterator[dict[str, str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.services.keeper", *wanted],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C at the terminal is for the tests, which then stop the servers.
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        yield _addresses(process)
    finally:
        _stop(process)


def _addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    answer: dict[str, str] = json.loads(process.stdout.readline() or "{}")
    if not answer:
        msg = "The keeper of the test servers ended before it gave their addresses."
        raise ServiceError(msg)
    if "error" in answer:
        raise ServiceError(answer["error"])
    return answer


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
