"""One peer at work: a database of its own, its driver, and its workers."""

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
    """A peer does not have what a workload needs."""


class Trouble(Exception):
    """A peer failed; the message is its traceback."""


@dataclass(slots=True)
class Sent:
    """Runs that were started: when each was, and how long it took to start them."""

    runs: list[int]
    times: list[float]
    seconds: float


class Driver:
    """The process that starts a peer's runs; calls go to it one at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self, do: str, *arguments: Any) -> Any:
        """Let the driver do something, and return what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"do": do, "arguments": arguments}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise Trouble(f"the driver ended at {do!r}")
        answer = json.loads(line)
        if "missing" in answer:
            raise Missing(do)
        if "error" in answer:
            raise Trouble(answer["error"])
        return answer["value"]


@dataclass(slots=True)
class Session:
    """What a workload works with: one peer that is ready."""

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
        """Raise ``Missing`` when the peer does not offer a shape."""
        if shape not in self.shapes:
            raise Missing(shape)

    def start(self, shape: str, count: int = 1, **sizes: int) -> Sent:
        """Start runs one by one."""
        return self._start("start", shape, count, sizes)

    def start_many(self, shape: str, count: int, **sizes: int) -> Sent:
        """Start runs in the peer's best way to start many."""
        return self._start("start_many", shape, count, sizes)

    def _start(self, how: str, shape: str, count: int, sizes: Sizes) -> Sent:
        self.need(shape)
        runs = list(itertools.islice(self._numbers, count))
        said = self.driver(how, shape, runs, sizes)
        return Sent(runs, said["sent"], said["seconds"])

    def wait(self, count: int, seconds: float = SECONDS) -> list[Mark]:
        """Wait for so many bodies, return their marks and forget them."""
        marks = self.marks.wait(count, seconds)
        self.marks.clear()
        return marks

    def settle(self) -> None:
        """Let the last commits pass, of which no mark tells."""
        time.sleep(0.3)
        self.marks.clear()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Run the peer's workers, warm, inside the block."""
        with group(self.commands, self.environment, self.log) as workers:
            self.workers = workers
            self.driver("ready")
            self._warm(workers)
            try:
                yield
            finally:
                self.workers = None

    def _warm(self, workers: Group) -> None:
        """Let every process do some work, and forget it."""
        for _ in range(2):
            self.start("steps", WARM_UP, steps=5)
            deadline = time.monotonic() + 60
            while self.marks.count() < WARM_UP * 5:
                if workers.ended() or time.monotonic() > deadline:
                    said = self.log.read_text(errors="replace")[-3000:]
                    raise Trouble(f"the workers do nothing:\n{said}")
                time.sleep(0.01)
            self.settle()


@contextmanager
def session(peer: Peer, server: Server) -> Iterator[Session]:
    """Give a peer that is prepared, in a database of its own, without workers yet."""
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
        # Each peer that has settings names its own; here some may be imported.
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
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(python), "-m", f"bench.peers.{peer.name}", "drive"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=environment,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    try:
        yield Driver(process)
    except Trouble as error:
        said = log.read_text(errors="replace")[-2000:]
        raise Trouble(f"{error}\n{said}") from None
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
