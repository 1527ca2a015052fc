"""The watchdog of a prefork worker: a thread of one child, never of the main process.

If a process forks while another thread holds a lock of libpq, OpenSSL or the resolver,
the lock stays locked forever in the child. So this package starts no thread in the main
process, and opens no database connection there. A timer of the main loop writes the
state of the main process into shared memory. The child that holds a file lock runs the
watchdog and reads that state. If the child ends, another child takes the lock.
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
from durable_jobs.worker import shutdown, watchdog
from durable_jobs.worker.active_tasks import ActiveTasks
from durable_jobs.worker.queue_loop import worker_name
from durable_jobs.worker.watchdog import IdleProbe, Watchdog

try:
    import fcntl
except ImportError:  # not a POSIX system: there, Celery forks no processes either
    fcntl = None  # type: ignore[assignment]  # checked before each use

#: Shuts the main process down. Celery and Django do not use this signal.
SHUTDOWN_SIGNAL: int = (
    signal.SIGRTMIN + 7 if hasattr(signal, "SIGRTMIN") else signal.SIGURG
)


class SharedState:
    """The state of the main process, in memory that its children can read.

    ``reserved``: a received message has not started in any child. The worker counts as
    busy until the main process consumes messages.
    """

    _LAYOUT = struct.Struct("dd?")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._memory = mmap.mmap(-1, self._LAYOUT.size)
        self._message_at = clock.monotonic()
        self.write(loop_seen_at=float("inf"), reserved=True)

    def write(self, *, loop_seen_at: float, reserved: bool) -> None:
        """Write when the main loop was responsive, and whether messages wait."""
        self._loop_seen_at = loop_seen_at
        self._memory[:] = self._LAYOUT.pack(self._message_at, loop_seen_at, reserved)

    def message_received(self, **kwargs: object) -> None:
        """Write that a message has arrived."""
        self._message_at = clock.monotonic()
        self.write(loop_seen_at=self._loop_seen_at, reserved=True)

    def read(self) -> tuple[float, float, bool]:
        """Return ``message_at``, ``loop_seen_at`` and ``reserved``."""
        message_at, loop_seen_at, reserved = self._LAYOUT.unpack(self._memory[:])
        return message_at, loop_seen_at, reserved


class ChildWatchdog(Watchdog):
    """A watchdog that runs while its child process holds the lock on ``file``."""

    def __init__(
        self,
        state: SharedState,
        file: IO[bytes],
        queues: Sequence[str],
        probe: IdleProbe,
        name: str,
    ) -> None:
        super().__init__(queues, probe.idle, self._end_main_process, name)
        self._state = state
        self._file = file
        self._probe = probe
        self._has_lock = False

    def _end_main_process(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._state.pid, SHUTDOWN_SIGNAL)

    def _loop(self) -> None:
        while not self._acquire():
            if self._stopped.wait(watchdog.CHECK_INTERVAL):
                return
        super()._loop()

    def _acquire(self) -> bool:
        """Return whether this child has the lock. It keeps the lock until it ends."""
        with suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._has_lock = True
            if os.fstat(self._file.fileno()).st_size:
                self._heartbeat_at = float("-inf")  # an earlier child sent one
            os.pwrite(self._file.fileno(), b"x", 0)
        return self._has_lock

    def check(self) -> None:
        """Read the state of the main process before the check."""
        message_at, loop_seen_at, _ = self._state.read()
        self._probe.loop_seen(loop_seen_at)
        if message_at > self._message_at:
            self._message_at, self._notified_at = message_at, None
        super().check()

    def _deregister(self) -> None:
        if shutdown.requested():  # else another child continues the watchdog
            super()._deregister()

    def close(self, **kwargs: object) -> None:
        """Stop. If the whole worker shuts down, remove its heartbeat."""
        self.stop()
        if self._has_lock:
            with suppress(Error):
                self._deregister()
            connections.close_all()


class PreforkWatchdog:
    """The parts of a prefork worker's watchdog, created before the pool forks."""

    def __init__(self, tasks: ActiveTasks, queues: Sequence[str]) -> None:
        self._tasks, self._queues = tasks, queues
        self._state = SharedState()
        self._name = worker_name()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # open as long as the worker

    def attach(self, worker: Any, reserved: Callable[[], bool]) -> None:
        """Make the main loop write its state, without a thread."""

        def report() -> None:
            self._state.write(loop_seen_at=clock.monotonic(), reserved=reserved())

        report()
        (worker.hub or worker.timer).call_repeatedly(watchdog.LOOP_INTERVAL, report)
        task_received.connect(self._state.message_received, weak=False)

    def start(self, **kwargs: object) -> None:
        """Start the watchdog in a child."""
        probe = IdleProbe(self._tasks.any, lambda: self._state.read()[2])
        child = ChildWatchdog(self._state, self._file, self._queues, probe, self._name)
        worker_process_shutdown.connect(child.close, weak=False)
        child.start()


def is_prefork(pool_cls: type) -> bool:
    """Return whether a pool forks processes."""
    return issubclass(pool_cls, TaskPool)
