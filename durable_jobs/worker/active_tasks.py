"""Whether any process of this worker is executing a task.

Celery's own state cannot tell. A main process that is blocked on a dead broker
connection never learns that its child has finished. So the processes share a lock: each
holds it while it executes a task. The kernel releases the lock of a process that dies.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import IO

try:
    import fcntl
except ImportError:  # not a POSIX system: there, Celery forks no processes either
    fcntl = None  # type: ignore[assignment]  # checked before each use


class ActiveTasks:
    """Counts the tasks of this process, and checks for those of its forked processes.

    ``file`` is the file to lock. It is open for writing and has no other use.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # POSIX locks belong to one process: a forked process does not inherit them.
        self._file = file
        self._count = 0
        self._guard = threading.Lock()

    def begin(self, **kwargs: object) -> None:
        """Record that a task starts in this process."""
        with self._guard:
            self._count += 1
            if self._count == 1 and fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_SH)

    def end(self, **kwargs: object) -> None:
        """Record that a task has ended in this process."""
        with self._guard:
            self._count = max(0, self._count - 1)
            if not self._count and fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def any(self) -> bool:
        """Return whether this process, or a forked process, executes a task."""
        # Under the guard: the test below would release the lock of a task that starts.
        with self._guard:
            if self._count or fcntl is None:
                return self._count > 0
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(self._file, fcntl.LOCK_UN)
                return False
            return True
