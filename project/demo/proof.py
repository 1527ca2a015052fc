"""Whether the import did what it should: the table, and the trail of every chunk."""

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


def validated(run: Run) -> set[int]:
    """Return the first lines of the chunks whose validation is recorded."""
    steps = Step.objects.filter(
        run=run, parent__name="validate", status=StepStatus.COMPLETED
    )
    return {int(name) * CHUNK for name in steps.values_list("name", flat=True)}


def total(run: Run) -> int:
    """Return how many chunks the file has; 0 while it is not parsed."""
    step = Step.objects.filter(run=run, name="parse").first()
    return 0 if step is None or step.output is None else len(step.output)


def differences(file: Path) -> Iterator[str]:
    """Compare the table of airports with the file that was imported, row by row."""
    with file.open(encoding="utf-8", newline="") as source:
        wanted = Counter(_row(line) for line in csv.DictReader(source))
    there = Counter(Airport.objects.values_list(*COLUMNS).iterator())
    for row, count in (wanted - there).items():
        yield f"missing {count} x {row}"
    for row, count in (there - wanted).items():
        yield f"too many {count} x {row}"


def _row(line: dict[str, str]) -> Row:
    return tuple(
        float(line[name]) if name in NUMBERS else line[name] for name in COLUMNS
    )


def repetitions(trail: Path, run: Run, recorded: Set[int], dead: int) -> Iterator[str]:
    """Look through the trail for work that should not have been done.

    ``recorded``: the chunks whose validation was recorded when worker ``dead`` died.
    """
    done = Counter(_steps(trail))
    every = set(range(0, total(run) * CHUNK, CHUNK))
    for first in sorted(every):
        pids = [pid for pid, what, line in done if (what, line) == ("validate", first)]
        if not pids:
            yield f"chunk {first} was never validated"
        if first in recorded and pids != [dead]:
            yield f"chunk {first} was recorded, and validated again by {pids}"
    for (pid, what, first), count in sorted(done.items()):
        if count > 1:
            yield f"worker {pid} did {what} {first} {count} times"


def again(trail: Path, dead: int) -> int:
    """Return how many validations the killed worker had begun and could not record."""
    steps = [(pid, line) for pid, what, line in _steps(trail) if what == "validate"]
    before = {line for pid, line in steps if pid == dead}
    return sum(line in before for pid, line in steps if pid != dead)


def _steps(trail: Path) -> Iterator[tuple[int, str, int]]:
    for line in trail.read_text().splitlines():
        pid, what, first = line.split()
        yield int(pid), what, int(first)
