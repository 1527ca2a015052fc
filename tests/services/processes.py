"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import struct_passwd
from typing import TypedDict

PR_SET_PDEATHSIG = 1
START_SECONDS = 30
LOG_LINES = 15


class ServiceError(Exception):
    """A server is missing or did not start; the message says what to do."""


class Surroundings(TypedDict, total=False):
    """The arguments of ``Popen`` that say who runs a command and what it sees."""

    env: dict[str, str]
    user: int
    group: int
    extra_groups: list[int]


def surroundings(account: struct_passwd | None) -> Surroundings:
    """Return the arguments of ``Popen`` that run a server's command as ``account``.

    The environment is bare: PGHOST, PGOPTIONS and similar are for other programs.
    """
    env = {"PATH": os.defpath, "LC_ALL": "C"}
    if account is None:
        return {"env": env}
    user, group = account.pw_uid, account.pw_gid
    return {"env": env, "user": user, "group": group, "extra_groups": []}


def die_with_parent(signum: signal.Signals) -> Callable[[], None] | None:
    """Return a ``preexec_fn`` that has the kernel send ``signum`` with the parent.

    ``Popen`` calls it after the change of user, which would clear the request.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def request() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signum)
        # The parent may have died between the fork and the request.
        if os.getppid() != parent:
            os._exit(1)

    return request


@contextmanager
def server(
    arguments: list[str],
    log: Path,
    ready: Callable[[], bool],
    stop: signal.Signals,
    account: struct_passwd | None = None,
) -> Iterator[int]:
    """Run a server until the block ends; yield its process id when it is ready."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments,
            cwd=log.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent(stop),
            **surroundings(account),
        )
    try:
        _wait_until(ready, process, log)
        yield process.pid
    finally:
        process.send_signal(stop)
        process.wait()


def _wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.01)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    msg = f"{log.stem} did not start within {START_SECONDS} s:\n{tail}"
    raise ServiceError(msg)
