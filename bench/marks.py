"""Record the start and end of step bodies in a file.

All peers write the file in the same way: one append per body, without the database. All
processes of a machine share the monotonic clock.
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
    """The run, step, start and end of one body."""

    run: int
    step: int
    began: float
    ended: float


def body(run: int, step: int) -> int:
    """The body of every step: record the time and return the step number."""
    began = time.monotonic()
    leave(run, step, began, time.monotonic())
    return step


def leave(run: int, step: int, began: float, ended: float) -> None:
    """Append one mark to the file."""
    global _file
    if _file is None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        _file = os.open(os.environ[VARIABLE], flags, 0o600)
    os.write(_file, _FORMAT.pack(run, step, began, ended))


class Marks:
    """The reader of the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clear()

    def clear(self) -> None:
        """Delete all marks."""
        self.path.write_bytes(b"")

    def count(self) -> int:
        """Return the number of marks."""
        return self.path.stat().st_size // _FORMAT.size

    def wait(self, count: int, seconds: float) -> list[Mark]:
        """Wait for ``count`` marks. Raise ``TimeoutError`` after ``seconds``."""
        deadline = time.monotonic() + seconds
        while (found := self.count()) < count:
            if time.monotonic() > deadline:
                msg = f"Expected {count} steps within {seconds:.0f} s, got {found}."
                raise TimeoutError(msg)
            time.sleep(0.002)
        return self.all()

    def all(self) -> list[Mark]:
        """Return all marks in the order of writing."""
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
    """Return the seconds between the end of each body and the start of the next."""
    return [
        after.began - before.ended
        for own in by_run(marks).values()
        for before, after in itertools.pairwise(own)
    ]
