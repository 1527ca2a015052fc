"""Run every workload for every peer, several times.

In each repetition, the peers run one after another. The cost of bare commits is
measured before each peer, so the results show whether the machine was busy.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench import floor
from bench.adapters import Peer
from bench.server import Server
from bench.sessions import Missing, Session, Trouble, session
from bench.sizes import Sizes
from bench.workloads import Figures, Workload

#: The name of the baseline: the cost of bare commits.
FLOOR = "floor"


@dataclass(slots=True)
class Results:
    """All measured values of each figure, in the order of the repetitions."""

    values: dict[tuple[str, str, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    troubles: dict[tuple[str, str], str] = field(default_factory=dict)

    def keep(self, peer: str, workload: str, figures: Figures) -> None:
        """Add the figures of one repetition."""
        for name, value in figures.items():
            self.values[peer, workload, name].append(value)

    def add(self, peer: str, workload: str, figures: Figures) -> None:
        """Add the figures of one repetition and print them as a line of JSON."""
        self.keep(peer, workload, figures)
        line = {"peer": peer, "workload": workload, **figures}
        print(json.dumps(line), flush=True)

    def fail(self, peer: str, workload: str, error: Exception) -> None:
        """Record the error of a workload and print it."""
        last = str(error).strip().splitlines()[-1]
        self.troubles[peer, workload] = last
        print(f"{peer}, {workload}: {error}", file=sys.stderr)


def race(
    peers: list[Peer],
    workloads: list[Workload],
    server: Server,
    sizes: Sizes,
    repeat: int,
) -> Results:
    """Run all workloads ``repeat`` times and return the results."""
    results = Results()
    for number in range(repeat):
        first = number == 0
        selected = [one for one in workloads if first or not one.once]
        # Rotate the order, so that no peer is always first or always last.
        offset = number * len(peers) // repeat
        for peer in [*peers[offset:], *peers[:offset]]:
            results.add(FLOOR, "floor", floor.measure(server))
            began = time.monotonic()
            _peer(peer, selected, server, sizes, results)
            took = time.monotonic() - began
            print(f"{peer.name}: {took:.0f} s", file=sys.stderr)
    return results


def _peer(
    peer: Peer,
    workloads: list[Workload],
    server: Server,
    sizes: Sizes,
    results: Results,
) -> None:
    for part in _parts(workloads):
        try:
            with session(peer, server) as ready:
                if part[0].workers:
                    with ready.working():
                        _measure(part, ready, sizes, results)
                else:
                    _measure(part, ready, sizes, results)
        except (Trouble, TimeoutError) as error:
            results.fail(peer.name, " ".join(part[0].names), error)


def _parts(workloads: list[Workload]) -> Iterator[list[Workload]]:
    """Yield the workloads without workers, then the workloads with workers."""
    for workers in (False, True):
        part = [one for one in workloads if one.workers is workers]
        if part:
            yield part


def _measure(
    workloads: list[Workload], ready: Session, sizes: Sizes, results: Results
) -> None:
    for one in workloads:
        name, began = one.names[0], time.monotonic()
        try:
            results.add(ready.peer.name, name, one.measure(ready, sizes))
        except Missing:
            continue
        except TimeoutError as error:
            results.fail(ready.peer.name, name, error)
            ready.settle()
        took = time.monotonic() - began
        print(f"{ready.peer.name}, {name}: {took:.0f} s", file=sys.stderr)
