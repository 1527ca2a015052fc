"""Whether this worker, including its forked processes, is shutting down.

A worker that shuts down finishes the running steps and starts nothing new.
"""

from __future__ import annotations

import mmap

#: One byte that forked children share with the main process.
_flag = mmap.mmap(-1, 1)


def request() -> None:
    """Start nothing new from now on."""
    _flag[0] = 1


def clear() -> None:
    """Allow new work again."""
    _flag[0] = 0


def requested() -> bool:
    """Return whether the worker is shutting down."""
    return _flag[0] == 1
