"""Checks of the import: compare the table with the file, and find repeated work."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Set
from pathlib import Path

from durable_jobs.models import Run, Step
from durable_jobs.statuses import StepStatus
from project.shop.durable import CHUNK
from project.shop.models import Airport

Row = tuple[str | float, ...]
COLUMNS = [field.name for field in Airport._meta.fields]
NUMBERS = {"elevation", "lat", "lon"}


def validated_chunks(run: Run) -> set[int]:
    """Return the first line of each chunk whose validation is recorded."""
    steps = Step.objects.filter(
        run=run, parent__name="validate", status=StepStatus.COMPLETED
    )
    return {int(name) * CHUNK for name in steps.values_list("name", flat=True)}


def chunk_count(run: Run) -> int:
    """Return the number of chunks of the file, or 0 before the file is parsed."""
    step = Step.objects.filter(run=run, name="parse").first()
    return 0 if step is None or step.output is None else len(step.output)


def table_differences(file: Path) -> Iterator[str]:
    """Describe each row that differs between the airports table and the file."""
    with file.open(encoding="utf-8", newline="") as source:
        expected = Counter(_row(line) for line in csv.DictReader(source))
    stored = Counter(Airport.objects.values_list(*COLUMNS).iterator())
    for row, count in (expected - stored).items():
        yield f"missing {count} x {row}"
    for row, count in (stored - expected).items():
        yield f"extra {count} x {row}"


def _row(line: dict[str, str]) -> Row:
    return tuple(
        float(line[name]) if name in NUMBERS else line[name] for name in COLUMNS
    )


def repeated_work(
    chunk_log: Path, run: Run, recorded: Set[int], killed_pid: int
) -> Iterator[str]:
    """Describe missing and repeated work in the chunk log.

    ``recorded`` holds the chunks whose validation was recorded when the worker
    ``killed_pid`` was killed.
    """
    entries = Counter(_entries(chunk_log))
    for first in range(0, chunk_count(run) * CHUNK, CHUNK):
        pids = [pid for pid, *work in entries if work == ["validate", first]]
        if not pids:
            yield f"chunk {first} was never validated"
        if first in recorded and pids != [killed_pid]:
            yield f"chunk {first} was recorded, and validated again by {pids}"
    for (pid, action, first), count in sorted(entries.items()):
        if count > 1:
            yield f"worker {pid} executed {action} {first} {count} times"


def revalidated_count(chunk_log: Path, killed_pid: int) -> int:
    """Return the number of chunks that another worker validated after the kill.

    The killed worker had started to validate these chunks and recorded no result.
    """
    validations = [
        (pid, first)
        for pid, action, first in _entries(chunk_log)
        if action == "validate"
    ]
    started = {first for pid, first in validations if pid == killed_pid}
    return sum(first in started for pid, first in validations if pid != killed_pid)


def _entries(chunk_log: Path) -> Iterator[tuple[int, str, int]]:
    """Yield the process id, action and first line of each log entry."""
    for line in chunk_log.read_text().splitlines():
        pid, action, first = line.split()
        yield int(pid), action, int(first)
