"""The race: every workload for every peer, in turns, several times over.

All that one peer does in a round follows on itself; the peers take turns within the
round, and the bare commits are measured before each, so that a busy machine shows.
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

#: The peer that stands for what a commit costs.
FLOOR = "floor"


@dataclass(slots=True)
class Results:
    """Every value of every figure, in the order of the repetitions."""

    values: dict[tuple[str, str, str], list[float]] = field(
        default_factory=lambda: defaultdict(list)
    )
    troubles: dict[tuple[str, str], str] = field(default_factory=dict)

    def keep(self, peer: str, workload: str, figures: Figures) -> None:
        """Keep what was measured."""
        for name, value in figures.items():
            self.values[peer, workload, name].append(value)

    def add(self, peer: str, workload: str, figures: Figures) -> None:
        """Keep what was measured, and print it as a line of JSON."""
        self.keep(peer, workload, figures)
        line = {"peer": peer, "workload": workload, **figures}
        print(json.dumps(line), flush=True)

    def fail(self, peer: str, workload: str, error: Exception) -> None:
        """Keep why a figure is not there."""
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
    """Run everything ``repeat`` times and return what was measured."""
    results = Results()
    for number in range(repeat):
        first = number == 0
        asked = [one for one in workloads if first or not one.once]
        # Nobody is always the first after a pause, or the last on a hot machine.
        turn = number * len(peers) // repeat
        for peer in [*peers[turn:], *peers[:turn]]:
            results.add(FLOOR, "floor", floor.measure(server))
            began = time.monotonic()
            _peer(peer, asked, server, sizes, results)
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
    """Give what is measured without workers, and then what is measured with them."""
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
