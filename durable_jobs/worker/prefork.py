"""The watchdog of a prefork worker: a thread of one child, never of the main process.

A process that is forked while another thread holds a lock of libpq, OpenSSL or the
resolver finds the lock held for ever. So the main process, which forks the children,
has no thread of ours and no database connection. It writes what it knows into shared
memory, by a timer of its own loop. The first child that takes a lock reads that and
runs the watchdog; when the child ends, the next one takes the lock.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Any

from celery.concurrency.prefork import TaskPool
from celery.signals import task_received, worker_process_shutdown
from django.db import Error, connections

from durable_jobs import clock
from durable_jobs.worker import watchdog
from durable_jobs.worker.active_tasks import Tasks
from durable_jobs.worker.queue_loop import worker_name
from durable_jobs.worker.shutdown import stopping
from durable_jobs.worker.watchdog import IdleProbe, Watchdog

try:
    import fcntl
except ImportError:  # not a POSIX system: there, Celery forks no processes either
    fcntl = None  # type: ignore[assignment]  # asked for before each use

#: Tells the main process to end; Celery and Django do not use it.
LEAVE: int = signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGURG


class Board:
    """What the main process writes and its children read.

    ``waits``: a message is here that no child has begun with. Until the main process
    consumes, it counts as busy.
    """

    _LAYOUT = struct.Struct("dd?")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._memory = mmap.mmap(-1, self._LAYOUT.size)
        self._heard_at = clock.monotonic()
        self.write(turned_at=float("inf"), waits=True)

    def write(self, *, turned_at: float, waits: bool) -> None:
        """Write when the main loop was responsive, and whether messages wait."""
        self._turned_at, self._waits = turned_at, waits
        self._memory[:] = self._LAYOUT.pack(self._heard_at, turned_at, waits)

    def heard(self, **kwargs: object) -> None:
        """Write that a message has arrived."""
        self._heard_at = clock.monotonic()
        self.write(turned_at=self._turned_at, waits=True)

    def read(self) -> tuple[float, float, bool]:
        """Return when a message arrived, when the loop turned, and what waits."""
        heard_at, turned_at, waits = self._LAYOUT.unpack(self._memory[:])
        return heard_at, turned_at, waits


class ChildPatrol(Watchdog):
    """The watchdog in a child that holds the lock on ``file``."""

    def __init__(
        self,
        board: Board,
        file: IO[bytes],
        queues: Sequence[str],
        hands: IdleProbe,
        name: str,
    ) -> None:
        super().__init__(queues, hands.idle, self._end_main_process, name)
        self._board = board
        self._file = file
        self._hands = hands
        self._holds = False

    def _end_main_process(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._board.pid, LEAVE)

    def _loop(self) -> None:
        while not self._acquire():
            if self._ends.wait(watchdog.EVERY):
                return
        super()._loop()

    def _acquire(self) -> bool:
        """Return whether this child has the lock, which it keeps until it ends."""
        with suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._holds = True
            if os.fstat(self._file.fileno()).st_size:
                self._noted_at = float("-inf")  # by an earlier child
            os.pwrite(self._file.fileno(), b"x", 0)
        return self._holds

    def look(self) -> None:
        """Read what the main process has written, and do what is missing."""
        heard_at, turned_at, _ = self._board.read()
        self._hands.turned(turned_at)
        if heard_at > self._heard_at:
            self._heard_at, self._rung_at = heard_at, None
        super().look()

    def _forget(self) -> None:
        if stopping():  # else another child goes on
            super()._forget()

    def close(self, **kwargs: object) -> None:
        """Stop; if the whole worker stops, remove its heartbeat."""
        self.stop()
        if self._holds:
            with suppress(Error):
                self._forget()
            connections.close_all()


class Watch:
    """What a prefork worker needs for its watchdog, made before it forks."""

    def __init__(self, tasks: Tasks, queues: Sequence[str]) -> None:
        self._tasks, self._queues = tasks, queues
        self._board = Board()
        self._name = worker_name()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # it stays open

    def attach(self, worker: Any, waiting: Callable[[], bool]) -> None:
        """Let the main process write its board; it starts no thread."""

        def report() -> None:
            self._board.write(turned_at=clock.monotonic(), waits=waiting())

        report()
        (worker.hub or worker.timer).call_repeatedly(watchdog.TURN, report)
        task_received.connect(self._board.heard, weak=False)

    def start(self, **kwargs: object) -> None:
        """Start the watchdog in a child."""
        hands = IdleProbe(self._tasks.any, lambda: self._board.read()[2])
        own = ChildPatrol(self._board, self._file, self._queues, hands, self._name)
        worker_process_shutdown.connect(own.close, weak=False)
        own.start()


def is_prefork(pool_cls: type) -> bool:
    """Return whether a pool forks processes."""
    return issubclass(pool_cls, TaskPool)
