"""When the bodies of steps began and ended, told to the benchmark through a file.

All peers write it alike: one append for each body, no database. The monotonic clock is
one for all the processes of a machine.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "BENCH_MARKS"

_FORMAT = struct.Struct("=qqdd")

_file: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """One body: of which run, which of its steps, and when."""

    run: int
    step: int
    began: float
    ended: float


def body(run: int, step: int) -> int:
    """Do nothing, and tell when: the body of every step."""
    began = time.monotonic()
    leave(run, step, began, time.monotonic())
    return step


def leave(run: int, step: int, began: float, ended: float) -> None:
    """Append one mark to the file of this benchmark."""
    global _file
    if _file is None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        _file = os.open(os.environ[VARIABLE], flags, 0o600)
    os.write(_file, _FORMAT.pack(run, step, began, ended))


class Marks:
    """The file, as the benchmark reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clear()

    def clear(self) -> None:
        """Forget what was left."""
        self.path.write_bytes(b"")

    def count(self) -> int:
        """Return how many marks there are."""
        return self.path.stat().st_size // _FORMAT.size

    def wait(self, count: int, seconds: float) -> list[Mark]:
        """Wait for ``count`` marks; raise ``TimeoutError`` when they do not come."""
        deadline = time.monotonic() + seconds
        while (found := self.count()) < count:
            if time.monotonic() > deadline:
                msg = f"{found} of {count} steps were done within {seconds:.0f} s."
                raise TimeoutError(msg)
            time.sleep(0.002)
        return self.all()

    def all(self) -> list[Mark]:
        """Return what was left, in order."""
        data = self.path.read_bytes()
        whole = len(data) // _FORMAT.size * _FORMAT.size
        return [Mark(*row) for row in _FORMAT.iter_unpack(data[:whole])]


def by_run(marks: list[Mark]) -> dict[int, list[Mark]]:
    """Return the marks of each run in the order of its steps."""
    found: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        found[mark.run].append(mark)
    return {run: sorted(own, key=lambda m: m.step) for run, own in found.items()}


def gaps(marks: list[Mark]) -> list[float]:
    """Return the seconds between the end of each body and the next one's beginning."""
    return [
        after.began - before.ended
        for own in by_run(marks).values()
        for before, after in itertools.pairwise(own)
    ]
