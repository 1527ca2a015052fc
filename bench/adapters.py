"""What a peer's module offers, and how it is talked to: JSON lines, one call each.

A peer runs in a virtual environment of its own, so nothing here needs more than Python.
``python -m bench.peers.NAME drive`` answers calls; ``… work`` is one of its workers.
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
    """What the harness must know of a peer before it can run.

    ``requirements`` are installed in an environment of its own; none: it runs in ours.
    """

    name: str
    title: str
    requirements: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    #: The packages whose versions are stated.
    stated: tuple[str, ...] = ()
    oldest_python: tuple[int, int] = (3, 11)
    durable: bool = True
    uses_database: bool = True


class NotOffered(Exception):
    """What the harness asks for is nothing that this peer has."""


class Adapter:
    """Drives one peer. What it does not offer is left as it is here.

    A *shape* is a kind of work: ``steps`` (``steps`` bodies, one after the other),
    ``sleep`` (a body, a sleep of ``seconds``, a body), ``fan`` (a body, ``branches``
    bodies that await ``ms`` side by side, a body), ``threads`` (the same with bodies
    that block), ``long`` (``steps`` bodies, a sleep of ``seconds``, a body). Runs are
    numbered, so that their marks can be told apart.
    """

    shapes: ClassVar[frozenset[str]] = frozenset({"steps"})
    #: Whether several runs can be started by one call.
    bulk: ClassVar[bool] = False
    #: Whether runs can be started while no worker is there.
    starts_alone: ClassVar[bool] = True

    def __init__(self) -> None:
        self.database = os.environ.get("DATABASE_URL", "")
        self.directory = os.environ.get("BENCH_DIRECTORY", "")

    def prepare(self) -> None:
        """Make tables and queues."""

    def commands(self) -> list[list[str]]:
        """Return the commands of the processes that work."""
        module = sys.modules["__main__"].__spec__
        assert module is not None
        return [[sys.executable, "-m", module.name, "work"]] * PROCESSES

    def ready(self) -> None:
        """Do what is to be done once the workers are up."""

    def start(self, shape: str, run: int, sizes: Sizes) -> None:
        """Start one run."""
        raise NotOffered

    def start_many(self, shape: str, runs: list[int], sizes: Sizes) -> None:
        """Start many runs in the way that is best for it."""
        for run in runs:
            self.start(shape, run, sizes)

    def fill(self, what: str, count: int) -> None:
        """Put rows in the tables as if they had come there by work."""
        raise NotOffered

    def work(self) -> None:
        """Be a worker until told to stop, where ``commands`` are the default ones."""
        raise NotOffered

    def close(self) -> None:
        """End what ``prepare`` began."""


class _Calls:
    """What the harness may ask."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter

    def about(self) -> dict[str, Any]:
        """Return what the peer offers, and its workers' commands."""
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
        """Start runs one by one; return when each was sent, and how long it took."""
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
        """Call what only this peer's adapter has."""
        method = getattr(self._adapter, name, None)
        if method is None:
            raise NotOffered
        return method(*arguments)


def run(make: Callable[[], Adapter]) -> None:
    """Do what the command line says: drive, or work."""
    adapter = make()
    if sys.argv[1:2] == ["work"]:
        adapter.work()
        return
    # What libraries print must not come between our lines.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    calls = _Calls(adapter)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            value = getattr(calls, asked["do"])(*asked["arguments"])
            answer = {"value": value}
        except NotOffered:
            answer = {"missing": asked["do"]}
        except Exception:  # noqa: BLE001  # it is raised in the harness
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    adapter.close()
