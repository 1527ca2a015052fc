"""A Celery worker as a process of its own: ``python -m project.demo.worker``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from project.celery import app
from project.demo.parents import die_with_parent

PLAIN = ("--without-heartbeat", "--without-mingle", "--without-gossip")


class Worker:
    """A worker that can be killed."""

    def __init__(self, log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603  # this very module
                [sys.executable, "-m", __name__],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._process.poll() is None

    def kill(self) -> int:
        """Send SIGKILL, which nothing can catch; return the signal it died of."""
        self._process.kill()
        return -self._process.wait()


if __name__ == "__main__":
    die_with_parent()
    app.worker_main(["worker", "--pool", "threads", "--concurrency", "2", *PLAIN])
