"""Celery as a host runs it: a worker of two processes, and beat, as child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery

from tests.services.processes import die_with_parent

PROCESSES = 2
QUEUE = "default"
SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What one process holds, in MB; ``proportional`` shares out what is shared."""

    resident: float
    proportional: float


class Worker:
    """A worker that is running."""

    def __init__(self, app: Celery, process: subprocess.Popen[bytes]) -> None:
        self.app = app
        self.pid = process.pid

    def hear(self) -> None:
        """Begin to take messages."""
        self.app.control.add_consumer(QUEUE, reply=True, timeout=5, limit=1)

    def turn_deaf(self) -> None:
        """Take no more messages."""
        self.app.control.cancel_consumer(QUEUE, reply=True, timeout=5, limit=1)

    def children(self) -> list[int]:
        """Return the ids of the processes that execute tasks."""
        listing = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return [int(pid) for pid in listing.read_text().split()]

    def wait_until_quiet(self) -> None:
        """Wait until every message was taken and answered."""
        deadline = time.monotonic() + SECONDS
        while self._waiting() or self._busy():
            if time.monotonic() > deadline:
                msg = f"The worker was not quiet within {SECONDS:.0f} s."
                raise TimeoutError(msg)
            time.sleep(0.05)

    def _waiting(self) -> int:
        with self.app.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(QUEUE, durable=True).message_count)

    def _busy(self) -> bool:
        inspect = self.app.control.inspect(timeout=5, limit=1)
        found: list[dict[str, list[Any]]] = [
            inspect.active() or {},
            inspect.reserved() or {},
        ]
        return any(tasks for answer in found for tasks in answer.values())

    def processor_seconds(self) -> float:
        """Return the processor time of the worker and its children so far."""
        ticks = 0
        for pid in [self.pid, *self.children()]:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> list[Memory]:
        """Return what each of the processes that execute tasks holds."""
        return [_memory(pid) for pid in self.children()]


def _memory(pid: int) -> Memory:
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Pss"):
            found[name] = int(value.split()[0]) / 1024
    return Memory(found["Rss"], found["Pss"])


@contextmanager
def worker(app: Celery) -> Iterator[Worker]:
    """Run a worker."""
    with _celery(["worker", "-c", str(PROCESSES), "-l", "ERROR"]) as process:
        deadline = time.monotonic() + SECONDS
        while not app.control.ping(timeout=0.5, limit=1):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The worker did not start.")
        yield Worker(app, process)


@contextmanager
def beat() -> Iterator[None]:
    """Run beat."""
    with (
        tempfile.TemporaryDirectory() as directory,
        _celery(["beat", "-l", "ERROR", "-s", f"{directory}/schedule"]),
    ):
        yield


@contextmanager
def _celery(options: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "celery", "-q", "-A", "project", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        # Celery warns each time that it runs as root, if it does.
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        preexec_fn=die_with_parent(signal.SIGTERM),
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
