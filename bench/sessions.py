"""Run one peer with its own database, driver process and workers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import environments
from bench.adapters import Peer, Sizes
from bench.marks import VARIABLE, Mark, Marks
from bench.processes import Group, group
from bench.server import Database, Server
from tests.services.processes import die_with_parent

SECONDS = 120.0
WARM_UP = 40
ROOT = Path(__file__).resolve().parent.parent


class Missing(Exception):
    """The peer does not support a feature that the workload needs."""


class Trouble(Exception):
    """The peer failed. The message contains its traceback or log."""


@dataclass(slots=True)
class Sent:
    """Started runs, the send times, and the seconds that all sends took."""

    runs: list[int]
    times: list[float]
    seconds: float


class Driver:
    """The process that starts a peer's runs. It executes one call at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, do: str, *arguments: Any) -> Any:
        """Call a function of the driver process and return its result."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"do": do, "arguments": arguments}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Trouble(f"The driver process ended during {do!r}.")
        response = json.loads(line)
        if "missing" in response:
            raise Missing(do)
        if "error" in response:
            raise Trouble(response["error"])
        return response["value"]


@dataclass(slots=True)
class Session:
    """A prepared peer, ready for a workload."""

    peer: Peer
    driver: Driver
    marks: Marks
    database: Database
    environment: dict[str, str]
    log: Path
    shapes: frozenset[str]
    bulk: bool
    starts_alone: bool
    commands: list[list[str]]
    workers: Group | None = None
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def need(self, shape: str) -> None:
        """Raise ``Missing`` if the peer does not support a shape."""
        if shape not in self.shapes:
            raise Missing(shape)

    def start(self, shape: str, count: int = 1, **sizes: int) -> Sent:
        """Start runs one at a time."""
        return self._start("start", shape, count, sizes)

    def start_many(self, shape: str, count: int, **sizes: int) -> Sent:
        """Start runs in bulk, in the fastest way that the peer has."""
        return self._start("start_many", shape, count, sizes)

    def _start(self, how: str, shape: str, count: int, sizes: Sizes) -> Sent:
        self.need(shape)
        runs = list(itertools.islice(self._numbers, count))
        response = self.driver(how, shape, runs, sizes)
        return Sent(runs, response["sent"], response["seconds"])

    def wait(self, count: int, seconds: float = SECONDS) -> list[Mark]:
        """Wait for the marks of ``count`` bodies. Clear and return the marks."""
        marks = self.marks.wait(count, seconds)
        self.marks.clear()
        return marks

    def settle(self) -> None:
        """Wait for the last commits, which leave no mark."""
        time.sleep(0.3)
        self.marks.clear()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Run the peer's workers during the block, after a warm-up."""
        with group(self.commands, self.environment, self.log) as workers:
            self.workers = workers
            self.driver("ready")
            self._warm(workers)
            try:
                yield
            finally:
                self.workers = None

    def _warm(self, workers: Group) -> None:
        """Return every process some work. Discard the marks."""
        for _ in range(2):
            self.start("steps", WARM_UP, steps=5)
            deadline = time.monotonic() + 60
            while self.marks.count() < WARM_UP * 5:
                if workers.ended() or time.monotonic() > deadline:
                    log = self.log.read_text(errors="replace")[-3000:]
                    raise Trouble(
                        f"The workers did not finish the warm-up. Log:\n{log}"
                    )
                time.sleep(0.01)
            self.settle()


@contextmanager
def session(peer: Peer, server: Server) -> Iterator[Session]:
    """Yield a prepared peer with its own database. Its workers do not run yet."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(server.database(f"bench_{peer.name}"))
        marks = Marks(directory / "marks")
        environment = {
            **os.environ,
            "DATABASE_URL": database.address,
            "BENCH_DIRECTORY": str(directory),
            VARIABLE: str(marks.path),
            "BENCH_NPM": str(environments.npm(peer)) if peer.npm else "",
            "PYTHONWARNINGS": "ignore",
        }
        # Peers with Django settings set this variable themselves.
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        log = directory / "log"
        driver = stack.enter_context(_driver(peer, environment, log))
        about = driver("about")
        commands = driver("prepare")
        yield Session(
            peer,
            driver,
            marks,
            database,
            environment,
            log,
            frozenset(about["shapes"]),
            about["bulk"],
            about["starts_alone"],
            commands,
        )


@contextmanager
def _driver(peer: Peer, environment: dict[str, str], log: Path) -> Iterator[Driver]:
    python = environments.python(peer)
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [str(python), "-m", f"bench.peers.{peer.name}", "drive"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    try:
        yield Driver(process)
    except Trouble as error:
        output = log.read_text(errors="replace")[-2000:]
        raise Trouble(f"{error}\n{output}") from None
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
