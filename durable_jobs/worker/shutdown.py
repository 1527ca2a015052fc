"""Whether this worker, and the processes it forked, should begin nothing new."""

from __future__ import annotations

import mmap

#: One byte that forked children share with the process that is told to stop.
_flag = mmap.mmap(-1, 1)


def stop() -> None:
    """Begin nothing new from now on."""
    _flag[0] = 1


def go() -> None:
    """Begin again."""
    _flag[0] = 0


def stopping() -> bool:
    """Tell whether nothing new should begin."""
    return _flag[0] == 1
