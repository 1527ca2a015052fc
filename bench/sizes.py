"""The sizes of the workloads. Each size is a command-line option."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of all workloads. The defaults fit a small machine."""

    runs: int = 300  #: five-step runs in W1, and one-step runs
    alone: int = 30  #: runs started one at a time in W2 and W3
    single: int = 300  #: runs enqueued one at a time in W4
    bulk: int = 2000  #: runs enqueued in bulk in W4
    sleeps: int = 100  #: concurrent sleeps in W5
    sleep: int = 2  #: seconds of each sleep
    branches: int = 100  #: branches in W6
    branch_ms: int = 10  #: milliseconds of each branch
    steps: int = 1000  #: steps in W7
    idle: int = 10  #: idle seconds in W12
    #: rows in the tables: finished and sleeping runs, due timers, waits (W9 to W11)
    history: int = 100_000
    sleeping: int = 100_000
    timers: int = 10_000
    waits: int = 10_000


#: The sizes of ``--large``.
LARGE = {
    "history": 10_000_000,
    "sleeping": 1_000_000,
    "timers": 100_000,
    "waits": 1_000_000,
}
#: The sizes of ``--small``, which checks that everything works.
SMALL = {
    "runs": 40,
    "alone": 5,
    "single": 20,
    "bulk": 100,
    "sleeps": 10,
    "branches": 20,
    "steps": 50,
    "idle": 3,
    "history": 1000,
    "sleeping": 1000,
    "timers": 200,
    "waits": 100,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--large``, ``--small`` and one option for each size."""
    group = parser.add_argument_group("sizes")
    group.add_argument("--large", action="store_true", help="millions of rows")
    group.add_argument(
        "--small", action="store_true", help="only check that everything works"
    )
    for one in fields(Sizes):
        group.add_argument(f"--{one.name.replace('_', '-')}", type=int, metavar="N")


def from_options(options: argparse.Namespace) -> Sizes:
    """Return the sizes that the command line selects."""
    chosen = dict(LARGE if options.large else {}) | (SMALL if options.small else {})
    for one in fields(Sizes):
        if (value := getattr(options, one.name)) is not None:
            chosen[one.name] = value
    return Sizes(**chosen)
