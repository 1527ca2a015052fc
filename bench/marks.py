"""When the bodies of steps began and ended, told to the benchmark through a file.

Both sides of the comparison write it alike: one append for five calls, no database. The
monotonic clock is one for all the processes of a machine.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

CALLS = 5
VARIABLE = "BENCH_MARKS"

_FORMAT = struct.Struct(f"{2 * CALLS}d")


@dataclass(frozen=True, slots=True)
class Trail:
    """The beginning and the end of each of the five calls."""

    calls: tuple[tuple[float, float], ...]

    @property
    def began(self) -> float:
        """When the first call began."""
        return self.calls[0][0]

    @property
    def ended(self) -> float:
        """When the last call ended."""
        return self.calls[-1][1]

    @property
    def gaps(self) -> list[float]:
        """The seconds between the end of each call and the beginning of the next."""
        after = self.calls[1:]
        return [
            next_[0] - call[1] for call, next_ in zip(self.calls, after, strict=False)
        ]


def mark() -> list[float]:
    """Do nothing, and tell when: the body of every step."""
    began = time.monotonic()
    return [began, time.monotonic()]


def leave(calls: Sequence[Sequence[float]]) -> None:
    """Append the marks of five calls to the file of this benchmark."""
    flat = [moment for call in calls for moment in call]
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, _FORMAT.pack(*flat))
    finally:
        os.close(file)


class Marks:
    """The file, as the benchmark reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clear()

    def clear(self) -> None:
        """Forget what was left."""
        self.path.write_bytes(b"")

    def wait(self, count: int, seconds: float) -> None:
        """Wait for ``count`` trails; raise ``TimeoutError`` when they do not come."""
        deadline = time.monotonic() + seconds
        while (found := self.path.stat().st_size // _FORMAT.size) < count:
            if time.monotonic() > deadline:
                msg = f"{found} of {count} were done within {seconds:.0f} s."
                raise TimeoutError(msg)
            time.sleep(0.002)

    def trails(self) -> list[Trail]:
        """Return what was left, in order."""
        return [
            Trail(tuple(zip(row[::2], row[1::2], strict=True)))
            for row in _FORMAT.iter_unpack(self.path.read_bytes())
        ]
