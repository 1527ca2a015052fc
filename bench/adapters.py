"""The interface of a peer's module, and its protocol: one JSON line per call.

Each peer runs in its own virtual environment, so this module imports only the standard
library. ``python -m bench.peers.NAME drive`` executes calls; ``… work`` is a worker.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

PROCESSES = 2

Sizes = dict[str, int]


@dataclass(frozen=True, slots=True)
class Peer:
    """The description of a peer.

    ``requirements`` are installed in the peer's own environment. Without requirements,
    the peer runs in this environment.
    """

    name: str
    title: str
    requirements: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    #: The packages whose versions the report names.
    stated: tuple[str, ...] = ()
    oldest_python: tuple[int, int] = (3, 11)
    durable: bool = True
    uses_database: bool = True


class NotOffered(Exception):
    """The peer does not support the called function."""


class Adapter:
    """Drive one peer. A subclass overrides the methods that the peer supports.

    A *shape* is a kind of work: ``steps`` (``steps`` bodies, one after the other),
    ``sleep`` (a body, a sleep of ``seconds``, a body), ``fan`` (a body, ``branches``
    parallel bodies that await ``ms``, a body), ``threads`` (the same with bodies that
    block), ``long`` (``steps`` bodies, a sleep of ``seconds``, a body). Each run has a
    number, which identifies its marks.
    """

    shapes: ClassVar[frozenset[str]] = frozenset({"steps"})
    #: Whether one call can start several runs.
    bulk: ClassVar[bool] = False
    #: Whether runs can be started while no worker runs.
    starts_alone: ClassVar[bool] = True

    def __init__(self) -> None:
        self.database = os.environ.get("DATABASE_URL", "")
        self.directory = os.environ.get("BENCH_DIRECTORY", "")

    def prepare(self) -> None:
        """Create tables and queues."""

    def commands(self) -> list[list[str]]:
        """Return the commands of the worker processes."""
        module = sys.modules["__main__"].__spec__
        assert module is not None
        return [[sys.executable, "-m", module.name, "work"]] * PROCESSES

    def ready(self) -> None:
        """Prepare what needs running workers."""

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Start one run."""
        raise NotOffered

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Start many runs in the fastest way that the peer has."""
        for run in runs:
            self.start(shape, run, sizes)

    def fill(self, what: str, count: int) -> None:
        """Insert rows as if runs had written them."""
        raise NotOffered

    def work(self) -> None:
        """Run as a worker until stopped. The default ``commands`` call this method."""
        raise NotOffered

    def close(self) -> None:
        """Release the resources of ``prepare``."""


class _Calls:
    """The functions that the harness may call."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def about(self) -> dict[str, Any]:
        """Return what the peer supports."""
        return {
            "shapes": sorted(self._adapter.shapes),
            "bulk": self._adapter.bulk,
            "starts_alone": self._adapter.starts_alone,
        }

    def prepare(self) -> list[list[str]]:
        self._adapter.prepare()
        return self._adapter.commands()

    def ready(self) -> None:
        self._adapter.ready()

    def start(self, shape: str, runs: list[int], sizes: Sizes) -> dict[str, Any]:
        """Start runs one at a time. Return the send times and the total seconds."""
        sent = []
        for run in runs:
            sent.append(time.monotonic())
            self._adapter.start(shape, run, sizes)
        return {"sent": sent, "seconds": time.monotonic() - sent[0]}

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> dict[str, Any]:
        began = time.monotonic()
        self._adapter.start_many(shape, runs, sizes)
        return {"sent": [began], "seconds": time.monotonic() - began}

    def fill(self, what: str, count: int) -> float:
        began = time.monotonic()
        self._adapter.fill(what, count)
        return time.monotonic() - began

    def call(self, name: str, arguments: list[Any]) -> Any:
        """Call a method that only this peer's adapter has."""
        method = getattr(self._adapter, name, None)
        if method is None:
            raise NotOffered
        return method(*arguments)


def run(make: Callable[[], Adapter]) -> None:
    """Execute the calls from standard input, or run as a worker after ``work``."""
    adapter = make()
    if sys.argv[1:2] == ["work"]:
        adapter.work()
        return
    # Output of libraries must not mix with the responses.
    responses = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    calls = _Calls(adapter)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            value = getattr(calls, request["do"])(*request["arguments"])
            response = {"value": value}
        except NotOffered:
            response = {"missing": request["do"]}
        except Exception:  # noqa: BLE001  # the harness raises it
            response = {"error": traceback.format_exc()}
        responses.write(json.dumps(response) + "\n")
        responses.flush()
    adapter.close()
