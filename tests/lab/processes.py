"""Real Celery workers and beats, for the tests that kill them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

PATIENCE = 60.0
#: The application name of the lab's processes at the database server.
APPLICATION = "lab"
ROOT = Path(__file__).resolve().parent.parent.parent


class Process:
    """A Celery process with all its children, in its own process group."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        descriptor, name = mkstemp(suffix=".log")
        self.log = Path(name)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "project", *arguments],
            cwd=ROOT,
            env=dict(environment),
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
        os.close(descriptor)

    @property
    def pid(self) -> int:
        """The id of the main process and of the group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Return whether the main process is still running."""
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to every process of the group."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def ended(self) -> int:
        """Wait until the main process has ended; return its code, -9 for SIGKILL."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill the whole group, wherever it is."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        self._process.wait(PATIENCE)

    def terminate(self) -> int:
        """Ask the main process to shut down and wait until the group has ended."""
        self._process.terminate()
        return self._process.wait(PATIENCE)

    def text(self) -> str:
        """Return the output."""
        return self.log.read_text()


#: Environment of all the lab's processes: short times, so that delays show soon.
SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "tests.lab.settings",
    # Logging of queries would disable prepared statements, which production uses.
    "DEBUG": "0",
    "LAB_LEASE_DURATION": "3s",
    "LAB_TICK_INTERVAL": "0.5s",
    "PGAPPNAME": APPLICATION,
}


class Lab:
    """Starts processes, and kills those that remain at the end."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = {**environment, **SETTINGS}
        self.processes: list[Process] = []
        self.workers: list[Process] = []

    def worker(self, *arguments: str, **environment: str) -> Process:
        """Start a worker; by default with one prefork child."""
        options = arguments or ("-P", "prefork", "-c", "1")
        worker = self.start(
            ["worker", "-l", "INFO", "-Q", "default", *options], environment
        )
        self.workers.append(worker)
        return worker

    def beat(self, **environment: str) -> Process:
        """Start a beat with its own schedule file."""
        schedule = mkstemp(suffix=".schedule")[1]
        os.unlink(schedule)
        return self.start(["beat", "-l", "INFO", "-s", schedule], environment)

    def start(self, arguments: list[str], environment: Mapping[str, str]) -> Process:
        """Start a Celery process with these arguments."""
        process = Process(arguments, {**self.environment, **environment})
        self.processes.append(process)
        return process

    def has_worker(self) -> bool:
        """Return whether a worker is running."""
        return any(worker.alive for worker in self.workers)

    def close(self) -> None:
        """Kill all processes."""
        for process in self.processes:
            process.kill()
            process.log.unlink(missing_ok=True)
        self.processes, self.workers = [], []

    def texts(self) -> str:
        """Return the output of all processes, for a failure's message."""
        return "\n".join(process.text()[-3000:] for process in self.processes)


@contextmanager
def lab(environment: Mapping[str, str]) -> Iterator[Lab]:
    """Yield a lab and kill its processes afterwards."""
    made = Lab(environment)
    try:
        yield made
    finally:
        made.close()


def until(condition: Callable[[], object], what: str, lab: Lab | None = None) -> None:
    """Poll until a condition holds; on timeout, fail with ``what`` was expected."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            said = lab.texts() if lab is not None else ""
            raise AssertionError(f"Waited {PATIENCE:.0f} s for {what}.\n{said}")
        time.sleep(0.02)
