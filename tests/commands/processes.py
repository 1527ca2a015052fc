"""Commands as separate processes, whose output is read as it comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.services.processes import die_with_parent

ROOT = Path(__file__).resolve().parent.parent.parent
#: The addresses of the tests' own servers; a command starts its own.
OWN = ("DATABASE_URL", "BROKER_URL", "DJANGO_SETTINGS_MODULE")


class Command:
    """A running ``manage.py`` command. The test's time limit ends a hang."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def until(self, text: str) -> str:
        """Read the output until a line has ``text``; return the line."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"It ended without {text!r}:\n{''.join(self.said)}")

    def interrupt(self) -> int:
        """Press Ctrl-C, read the rest, and return the exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.end()

    def end(self) -> int:
        """Read the rest, and return the exit code."""
        assert self.process.stdout is not None
        self.said += self.process.stdout
        return self.process.wait()


@contextmanager
def command(
    folder: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """Run ``manage.py`` in a folder, and end all its processes after the block."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=folder,
        env={**clean_environment(), **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        yield Command(process)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def clean_environment() -> dict[str, str]:
    """Return an environment without the addresses of the tests' servers."""
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def manage(folder: Path, *arguments: str) -> str:
    """Run a command to its end, check its exit code, and return its output."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
