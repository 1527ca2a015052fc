"""Whether any process of this worker is inside a task, by its own word.

What Celery has in its hands does not tell. A main process that is stuck in a dead
connection to the broker, while it acknowledges a message or sends a heartbeat, never
learns that its child is done. So each process that executes shares a lock, which the
kernel takes back from one that dies.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import IO

try:
    import fcntl
except ImportError:  # not a POSIX system: there, Celery forks no processes either
    fcntl = None  # type: ignore[assignment]  # asked for before each use


class Tasks:
    """Counts the tasks of this process, and asks for those of all that it forked.

    ``file`` is what they lock: open for writing, and theirs alone.
    """

    def __init__(self, file: IO[bytes]) -> None:
        # Locks of this kind belong to a process: a forked one begins without.
        self._file = file
        self._count = 0
        self._guard = threading.Lock()

    def begin(self, **kwargs: object) -> None:
        """Note that a task begins here."""
        with self._guard:
            self._count += 1
            if self._count == 1 and fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_SH)

    def end(self, **kwargs: object) -> None:
        """Note that a task has ended here."""
        with self._guard:
            self._count = max(0, self._count - 1)
            if not self._count and fcntl is not None:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def any(self) -> bool:
        """Tell whether this process, or one that it forked, is inside a task."""
        # With the guard: a task that begins now must not lose its lock to this test.
        with self._guard:
            if self._count or fcntl is None:
                return self._count > 0
            with suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fcntl.lockf(self._file, fcntl.LOCK_UN)
                return False
            return True
