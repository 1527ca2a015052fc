"""Restate: a server with its own log, which calls services over HTTP/2."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar

from bench.adapters import PROCESSES, Adapter, Peer, Sizes, run

PEER = Peer(
    "restate",
    "Restate (its own log, no PostgreSQL)",
    ("restate-sdk==1.3.0", "hypercorn"),
    ("@restatedev/restate-server",),
    stated=("restate-sdk",),
    uses_database=False,
)

#: The number of clients that send runs in bulk.
CLIENTS = 16
SECONDS = 60.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Restate(Adapter):
    """Send requests to the server's ingress."""

    shapes: ClassVar[frozenset[str]] = frozenset({"steps", "sleep", "fan", "long"})
    bulk: ClassVar[bool] = True
    starts_alone: ClassVar[bool] = False

    def prepare(self) -> None:
        """Choose ports, and write the server's configuration."""
        self._ingress, self._admin, self._node, self._service = (
            _free_port() for _ in range(4)
        )
        self._local = threading.local()
        self._config = Path(self.directory) / "restate.toml"
        self._config.write_text(
            f'base-dir = "{self.directory}/restate"\n'
            f'bind-address = "127.0.0.1:{self._node}"\n'
            'log-filter = "warn"\n'
            "disable-telemetry = true\n"
            'listen-mode = "tcp"\n'
            "auto-provision = true\n"
            f'[ingress]\nbind-address = "127.0.0.1:{self._ingress}"\n'
            f'[admin]\nbind-address = "127.0.0.1:{self._admin}"\n'
        )

    def commands(self) -> list[list[str]]:
        """Return the server, and a service of two processes."""
        server = f"{os.environ['BENCH_NPM']}/node_modules/.bin/restate-server"
        hypercorn = [sys.executable, "-m", "hypercorn", "-w", str(PROCESSES)]
        address = f"127.0.0.1:{self._service}"
        module = "bench.hosts.restate_service:app"
        return [
            [server, "-c", str(self._config)],
            [*hypercorn, "-b", address, "--log-level", "error", module],
        ]

    def ready(self) -> None:
        """Register the service with the server, once both are up."""
        deadline = time.monotonic() + SECONDS
        uri = {"uri": f"http://127.0.0.1:{self._service}", "use_http_11": False}
        while True:
            try:
                self._post(
                    HTTPConnection("127.0.0.1", self._admin), "/deployments", uri
                )
                return
            except (OSError, ValueError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Send one invocation. The server responds when it is on disk."""
        if not hasattr(self._local, "connection"):
            self._local.connection = HTTPConnection("127.0.0.1", self._ingress)
        path = f"/bench/{shape}/send"
        self._post(self._local.connection, path, {"run": run, **sizes})

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Send from ``CLIENTS`` clients at once."""
        threads = [
            threading.Thread(target=self._starts, args=(shape, runs[n::CLIENTS], sizes))
            for n in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _starts(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        for number in runs:
            self.start(shape, number, sizes)

    def _post(self, connection: HTTPConnection, path: str, data: Any) -> None:
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(data), headers)
        response = connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise ValueError(f"{path} answered {response.status}: {text[:300]!r}")


if __name__ == "__main__":
    run(partial(Restate))
