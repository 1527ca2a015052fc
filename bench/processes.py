"""Start, measure and end the processes of a peer."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.services.processes import die_with_parent

SECONDS = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of one process in MB. ``proportional`` divides shared pages (PSS)."""

    resident: float
    proportional: float


class Group:
    """Processes that were started together, with their children."""

    def __init__(self, processes: list[subprocess.Popen[bytes]]) -> None:
        self._processes = processes

    def ended(self) -> bool:
        """Return whether any of the processes has ended."""
        return any(process.poll() is not None for process in self._processes)

    def pids(self) -> list[int]:
        """Return the ids of all processes and their children."""
        found = [process.pid for process in self._processes]
        for pid in found:
            found += _children(pid)
        return found

    def processor(self) -> dict[int, float]:
        """Return the processor time of each process so far."""
        return processor(self.pids())

    def memory(self) -> list[Memory]:
        """Return the memory of each process."""
        return [memory(pid) for pid in self.pids()]


@contextmanager
def group(
    commands: Iterable[list[str]], environment: Mapping[str, str], log: Path
) -> Iterator[Group]:
    """Run commands during the block. Their output goes to ``log``."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with log.open("ab") as output:
            for command in commands:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        env=dict(environment),
                        start_new_session=True,
                        preexec_fn=die_with_parent(signal.SIGTERM),
                    )
                )
        yield Group(processes)
    finally:
        for process in processes:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(SECONDS)
    # Kill remaining children. They are in the process group of the started process.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def processor(pids: Iterable[int]) -> dict[int, float]:
    """Return the processor time of each process in seconds, by process id."""
    found = {}
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue  # the process has ended
        fields = text.rpartition(")")[2].split()
        found[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def spent(before: dict[int, float], after: dict[int, float]) -> float:
    """Return the processor time between two measurements, without ended processes."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def memory(pid: int) -> Memory:
    """Return the memory of one process."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Pss"):
            found[name] = int(value.split()[0]) / 1024
    return Memory(found["Rss"], found["Pss"])


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in listing.read_text().split()]
        except OSError:
            continue
    return found
