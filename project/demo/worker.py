"""A Celery worker in a separate process: ``python -m project.demo.worker``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from project.celery import app
from project.demo.parents import die_with_parent

OPTIONS = ("--without-heartbeat", "--without-mingle", "--without-gossip")


class Worker:
    """A worker process that the demo can kill."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # this module
                [sys.executable, "-m", __name__],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Return whether the process is running."""
        return self._process.poll() is None

    def kill(self) -> int:
        """Send SIGKILL and return the number of the signal that ended the process."""
        self._process.kill()
        return -self._process.wait()


if __name__ == "__main__":
    die_with_parent()
    app.worker_main(["worker", "--pool", "threads", "--concurrency", "2", *OPTIONS])
